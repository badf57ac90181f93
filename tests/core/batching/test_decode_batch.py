"""What is carried from step to step is what would be made anew; sums are what single counts give.

The traces check both after every step; here it is seen that such a check bites, and on memories
alone that all decodes reserved at once are as if each had been.
"""

import pytest
from backplane_core.batching.cell_memory import CellMemory
from backplane_core.batching.executor import BlockGroup, MemoryLayout
from backplane_core.batching.memory import Retention
from backplane_core.batching.paged_memory import PagedMemory
from backplane_core.batching.sequence import Sequence
from backplane_core.batching.slot_memory import SlotMemory
from backplane_core.messages import Submit, TokenSegment
from backplane_core.sampling import StoppingParams
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
MEMORIES = {PAGED: PagedMemory, CELLS: CellMemory, SLOTS: SlotMemory}
GROUPS = tuple(
    BlockGroup(num_blocks=number, window=window) for number, window in ((15, None), (9, 6), (14, 9))
)


@pytest.mark.parametrize("layout", MemoryLayout)
def test_a_decode_keeps_its_share_and_reads_on_in_it(layout):
    engine = Engine(make_traits(layout))
    for name in ("a", "b"):
        engine.submit(name, [1, 2, 3], 12, ignore_eos=True)
    engine.until(lambda: len(engine.answer("b").token_ids) >= 2)
    shares = engine.executor.batches[-1].sequences
    engine.step()
    batch = engine.executor.batches[-1]
    assert batch.num_decodes == 2
    assert [id(share) for share in batch.sequences] == [id(share) for share in shares]
    assert batch.sequences is not shares, "the list is the executor's own"
    engine.run()
    engine.check_alone()


@pytest.mark.parametrize(
    ("name", "value"), [("start", 1), ("token_ids", [95]), ("block_tables", []), ("seq_id", 7)]
)
def test_a_stale_share_is_noticed(name, value):
    engine = Engine(make_traits(PAGED))
    engine.submit("a", [1, 2, 3], 9, ignore_eos=True)
    engine.until(lambda: len(engine.answer("a").token_ids) == 2)
    setattr(engine.executor.batches[-1].sequences[0], name, value)
    with pytest.raises(AssertionError):
        engine.runner.check_integrity()


def test_a_batch_that_failed_leaves_nothing_reserved():
    for layout in MemoryLayout:
        engine = Engine(make_traits(layout, max_sequences=4, cache_tokens=4 * 64))
        engine.submit("a", [1, 2, 3], 9, ignore_eos=True)
        engine.until(lambda engine=engine: len(engine.answer("a").token_ids) == 2)
        engine.executor.out_of_memory = 9
        engine.step()
        assert engine.errors["a"].code == "out_of_memory"
        assert engine.stats.used_tokens == 0


class _Verbs:
    """An executor's memory verbs that do nothing: the books alone are compared."""

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        pass

    def trim(self, seq_id: int, num_tokens: int) -> None:
        pass

    def release(self, seq_id: int) -> None:
        pass

    def hand_over(self, seq_id: int, num_tokens: int) -> None:
        pass


class Books:
    """One memory and its sequences, decoded all at once or one by one."""

    def __init__(
        self, layout: MemoryLayout, *, at_once: bool, groups: tuple[BlockGroup, ...] = ()
    ) -> None:
        traits = make_traits(
            layout, max_sequences=5, cache_tokens=60, slot_tokens=60, block_groups=groups
        )
        retention = Retention(traits.cache_tokens, traits.max_sequences)
        self.memory = MEMORIES[layout](traits, _Verbs(), retention)
        self.at_once = at_once
        self.running: list[Sequence] = []

    def admit(self, text: int) -> bool:
        request = Submit(
            request_id="r",
            prompt=[TokenSegment(token_ids=[1, 2, 3, 4, 5, *[text] * (text % 4)])],
            stopping=StoppingParams(max_new_tokens=99),
        )
        tokens = list(request.prompt_token_ids)
        one = Sequence(
            request=request,
            index=0,
            token_ids=tokens,
            num_prompt_tokens=len(tokens),
            eos_token_ids=frozenset(),
        )
        if not self.memory.admit(one, 0):
            return False
        assert self.memory.reserve(one, one.num_uncomputed_tokens)
        one.num_computed_tokens = len(tokens)
        self.memory.commit(one, len(tokens))
        tokens.append(text)
        self.running.append(one)
        return True

    def decode(self, mask: int) -> bool:
        takers = [one for place, one in enumerate(self.running) if mask >> place & 1]
        if self.at_once:
            if not self.memory.reserve_decodes(takers):
                return False
            self.memory.commit_decodes(takers)
        else:
            usage = self.memory.usage()
            if len(takers) > usage.free + usage.cached and not isinstance(self.memory, PagedMemory):
                return False
            if not all(self.memory.reserve(one, 1) for one in takers):
                return False
            for one in takers:
                one.num_computed_tokens += 1
                self.memory.commit(one, one.num_computed_tokens)
        for one in takers:
            one.token_ids.append(len(one.token_ids) % 7)
        return True

    def release(self, place: int, *, keep: bool) -> None:
        if self.running:
            one = self.running.pop(place % len(self.running))
            self.memory.release(one, one.num_computed_tokens if keep else 0)

    def state(self) -> tuple[object, ...]:
        self.memory.check_integrity(self.running)
        sequences = [
            (one.seq_id, one.num_computed_tokens, one.block_tables) for one in self.running
        ]
        return self.memory.usage(), sequences


@pytest.mark.parametrize(
    ("layout", "groups"), [(PAGED, ()), (PAGED, GROUPS), (CELLS, ()), (SLOTS, ())]
)
def test_all_at_once_is_as_one_by_one(layout, groups):
    seen = {"decoded": 0, "full": 0}

    @settings(derandomize=True, database=None, deadline=None, max_examples=250)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("admit"), st.integers(1, 8)),
                st.tuples(st.just("decode"), st.integers(0, 31)),
                st.tuples(st.just("run"), st.integers(1, 9)),
                st.tuples(st.just("keep"), st.integers(0, 4)),
                st.tuples(st.just("drop"), st.integers(0, 4)),
            ),
            min_size=10,
            max_size=60,
        )
    )
    def check(events):
        both = [Books(layout, at_once=one, groups=groups) for one in (True, False)]
        for name, number in events:
            if name == "admit":
                assert len({books.admit(number) for books in both}) == 1
            elif name in {"keep", "drop"}:
                for books in both:
                    books.release(number, keep=name == "keep")
            for mask in {"decode": [number], "run": [31] * number}.get(name, []):
                worked = {books.decode(mask) for books in both}
                assert len(worked) == 1
                seen["decoded" if worked == {True} else "full"] += 1
                if worked == {False}:
                    return  # one by one, some have their room by now
            assert both[0].state() == both[1].state()

    check()
    assert seen["decoded"] > 500
    assert seen["full"] > 5


def test_a_sum_that_was_not_committed_is_free_again():
    for layout in MemoryLayout:
        books = Books(layout, at_once=True)
        assert books.admit(1)
        assert books.admit(2)
        before = books.memory.usage()
        assert books.memory.reserve_decodes(books.running)
        if layout is not PAGED:  # blocks stay in the table, for the next step
            assert books.memory.usage().used == before.used + 2
        assert books.memory.reserve_decodes([])
        if layout is not PAGED:
            assert books.memory.usage() == before
        books.memory.check_integrity(books.running)
