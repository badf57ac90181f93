"""Groups of blocks: what each holds, what its window passes, what can be gone on from."""

import pytest
from backplane_core.batching.executor import BlockGroup, ExecutorTraits, MemoryLayout
from backplane_core.batching.group_blocks import GroupBlocks, most_held_blocks
from backplane_core.batching.memory import Retention
from backplane_core.batching.paged_memory import PagedMemory
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import ValidationError
from backplane_core.messages import Submit, TokenSegment
from backplane_core.sampling import StoppingParams
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
SIZE = 4
PROMPT = [1 + index * 7 % 90 for index in range(42)]  # ten blocks, and two more


def grouped(*groups: tuple[int, int | None], **fields) -> ExecutorTraits:
    """Traits with groups of so many blocks and such windows."""
    return make_traits(
        PAGED,
        block_size=SIZE,
        cache_tokens=groups[0][0] * SIZE,
        block_groups=tuple(BlockGroup(num_blocks=number, window=one) for number, one in groups),
        **fields,
    )


def memory_of(traits: ExecutorTraits, max_retained: int | None = None) -> PagedMemory:
    retention = Retention(traits.cache_tokens if max_retained is None else max_retained, 99)
    return PagedMemory(traits, Engine(traits).executor, retention)


def sequence_of(token_ids: list[int]) -> Sequence:
    request = Submit(
        request_id="r",
        prompt=[TokenSegment(token_ids=token_ids)],
        stopping=StoppingParams(max_new_tokens=9),
    )
    return Sequence(
        request=request,
        index=0,
        token_ids=list(token_ids),
        num_prompt_tokens=len(token_ids),
        eos_token_ids=frozenset(),
    )


def compute(memory: PagedMemory, sequence: Sequence, num_tokens: int) -> None:
    assert memory.reserve(sequence, num_tokens)
    sequence.num_computed_tokens += num_tokens
    memory.commit(sequence, sequence.num_computed_tokens)


def books(memory: PagedMemory) -> list[tuple[int, int]]:
    return [(group.num_free, group.num_cached) for group in memory._groups]


def num_prefilled(engine: Engine, request_id: str, prompt: list[int], num_new=6, **fields) -> int:
    before = engine.stats.num_prefilled_tokens
    engine.submit(request_id, prompt, num_new, ignore_eos=True, **fields)
    engine.run()
    engine.check_alone()
    return engine.stats.num_prefilled_tokens - before


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"layout": CELLS, "block_size": 1}, "cells"),
        ({"cache_tokens": 84}, "84"),
        ({"block_size": 8}, "160"),
    ],
)
def test_groups_that_do_not_fit_the_rest_are_refused(fields, why):
    whole = {"layout": PAGED, "block_size": 4, "cache_tokens": 80, **fields}
    with pytest.raises(ValueError, match=why):
        make_traits(**whole, block_groups=(BlockGroup(num_blocks=20),))


@pytest.mark.parametrize("fields", [{"num_blocks": 0}, {"num_blocks": 3, "window": 0}])
def test_a_group_that_holds_nothing_is_refused(fields):
    with pytest.raises(ValueError, match="below 1"):
        BlockGroup(**fields)


def test_one_group_need_not_be_spelled_out():
    assert make_traits(PAGED, cache_tokens=256).groups == (BlockGroup(num_blocks=64),)


@pytest.mark.parametrize("window", [1, 2, 4, 5, 6, 9, 30])
def test_a_sequence_longer_than_the_memory_goes_on_within_its_window(window):
    num_blocks = most_held_blocks(window, SIZE, 1, 8)
    engine = Engine(grouped((num_blocks, window), max_batch_tokens=8))
    engine.submit("r", PROMPT, 150, ignore_eos=True)
    num_owned = 0
    while engine.busy:
        engine.step()
        num_owned = max(num_owned, engine.stats.used_tokens // SIZE)
    engine.check_alone()
    assert len(engine.answer("r").token_ids) == 150
    assert -(-window // SIZE) <= num_owned <= num_blocks < 192 // SIZE


def test_what_is_passed_of_a_decode_is_no_longer_held():
    engine = Engine(grouped((64, None), (64, 6)))
    engine.submit("r", PROMPT[:5], 40, ignore_eos=True)
    engine.until(lambda: len(engine.answer("r").token_ids) == 31)
    whole, windowed = engine.runner._scheduler.running[0].block_tables
    # 35 tokens are computed; the one after the eighth block sees five before it.
    assert len(whole) == len(windowed) == 9
    assert -1 not in whole
    assert windowed[:6] == [-1] * 6
    assert -1 not in windowed[6:]


def test_a_sequence_is_as_long_as_its_least_group_allows():
    for groups, max_tokens in (
        (((20, None), (9, 9)), 80),
        (((20, None), (7, 9)), 28),  # the window may need two blocks, and a batch six more
        (((20, None), (8, 9)), 80),
        (((8, 9),), 256),
    ):
        traits = grouped(*groups, max_batch_tokens=16)
        assert memory_of(traits).max_sequence_tokens == max_tokens
        with pytest.raises(ValidationError, match=f"holds {max_tokens}"):
            Engine(traits).submit("r", [1] * (max_tokens + 1))


@settings(derandomize=True, database=None, max_examples=400, deadline=None)
@given(
    kept=st.lists(
        st.tuples(st.sampled_from([None, 1, 2, 5, 6, 12, 40]), st.sets(st.integers(0, 9))),
        min_size=1,
        max_size=3,
    ),
    num_tokens=st.integers(1, 42),
)
def test_the_longest_prefix_is_found_from_which_every_group_can_go_on(kept, num_tokens):
    memory = memory_of(grouped(*((10, window) for window, _ in kept)))
    sequence = sequence_of(PROMPT[:num_tokens])
    names = [memory._hash(sequence, index) for index in range((num_tokens - 1) // SIZE)]
    for group, (_, lost) in zip(memory._groups, kept, strict=True):
        table: list[int] = []
        group.extend([table] * len(names))
        for index, block in enumerate(table):
            if index not in lost:
                group.cache.insert(names[index], block)

    def can_go_on(num_blocks: int) -> bool:
        return not any(
            index in lost
            for window, lost in kept
            for index in range(num_blocks)
            # The token behind the blocks sees a token of this one.
            if window is None or num_blocks * SIZE - window < (index + 1) * SIZE - 1
        )

    expected = max(number for number in range(len(names) + 1) if can_go_on(number))
    assert memory._find_prefix(sequence) == expected


def test_what_a_window_passed_is_found_where_others_part_from_the_prompt():
    engine = Engine(grouped((64, None), (64, 6)))
    assert num_prefilled(engine, "first", PROMPT) == 42
    assert num_prefilled(engine, "parts early", [*PROMPT[:13], 50, 51]) == 15 - 12
    assert num_prefilled(engine, "parts late", [*PROMPT[:30], 50, 51]) == 32 - 28
    turn = [*PROMPT, *engine.answer("first").token_ids, 1, 2, 3]
    assert num_prefilled(engine, "next turn", turn) == len(turn) - 44


def test_what_is_lost_in_one_group_is_computed_again_in_all():
    engine = Engine(grouped((64, None), (13, 6), max_batch_tokens=8))
    assert num_prefilled(engine, "first", PROMPT) == 42
    # This takes nine blocks of each group: of the second those that were passed first.
    assert num_prefilled(engine, "other", PROMPT[::-1][:31]) == 31
    before = engine.stats.cached_tokens
    assert num_prefilled(engine, "first again", PROMPT) == 42 - 40
    assert num_prefilled(engine, "parts early", [*PROMPT[:13], 50, 51]) == 15
    # What the first group had of it has kept its name, so only the last blocks are new to it.
    assert engine.stats.cached_tokens <= before + 3 * SIZE


@pytest.mark.parametrize("window", [3, 6, 90])
def test_forks_take_the_window_over(window):
    engine = Engine(grouped((64, None), (64, window), max_batch_tokens=96))
    assert num_prefilled(engine, "r", PROMPT, num_sequences=4) == 42 + 3 * 2
    assert len({tuple(engine.answer("r", index).token_ids) for index in range(4)}) == 4


def test_who_shares_a_window_needs_only_what_is_its_own():
    memory = memory_of(grouped((64, None), (9, 17), max_batch_tokens=8))
    first, second = sequence_of(PROMPT[:33]), sequence_of(PROMPT[:33])
    assert memory.admit(first, 0)
    for num_tokens in (8, 8, 8, 9):
        compute(memory, first, num_tokens)
    # The first holds five blocks; the second sees four of them and needs one.
    assert not memory.admit(second, 4 * SIZE)
    assert memory.admit(second, 3 * SIZE)
    assert second.num_matched_tokens == 32
    compute(memory, second, 1)
    memory.check_integrity([first, second])


def test_a_reservation_that_fails_in_one_group_changes_none():
    memory = memory_of(grouped((20, None), (6, 40), (20, None)))
    first, second = sequence_of(PROMPT[:16]), sequence_of(PROMPT[16:24])
    for sequence in (first, second):
        assert memory.admit(sequence, 0)
        compute(memory, sequence, sequence.num_uncomputed_tokens)
    memory.release(second, 8)
    before = books(memory), [table.copy() for table in first.block_tables]
    assert before[0] == [(14, 2), (0, 2), (14, 2)]
    assert not memory.reserve(first, 12)
    assert (books(memory), first.block_tables) == before
    assert memory.reserve(first, 8)
    assert books(memory) == [(12, 2), (0, 0), (12, 2)]
    memory.check_integrity([first])


def test_a_next_block_that_one_group_lacks_is_taken_in_none():
    memory = memory_of(grouped((20, None), (4, 40)))
    one = sequence_of(PROMPT[:16])
    assert memory.admit(one, 0)
    compute(memory, one, 16)
    one.token_ids.append(1)
    assert not memory.reserve_decodes([one])
    assert books(memory) == [(16, 0), (0, 0)]
    memory.check_integrity([one])


def passed_group(num_prompt_blocks: int) -> tuple[GroupBlocks, list[int]]:
    """Eight blocks, of which a window of one passed the first six; the others are free."""
    group = GroupBlocks(BlockGroup(num_blocks=8, window=1), SIZE, 8, 8)
    table: list[int] = []
    group.extend([table] * 6)
    for index, block in enumerate(table):
        group.cache.insert(bytes([index]), block)
    group.pass_by(table, 0, 6, num_prompt_blocks)
    return group, table


def contents(group: GroupBlocks) -> set[int]:
    return {index for index in range(6) if group.cache.find(bytes([index])) is not None}


def test_of_a_prompt_the_least_recently_seen_is_evicted_first():
    group, table = passed_group(num_prompt_blocks=6)
    assert table == [-1] * 6
    assert (group.num_free, group.num_cached) == (2, 6)
    group.take_over(group_table := [group.cache.find(bytes([0]))])
    group.release(group_table, 1)
    group.extend([[]] * 5)
    assert contents(group) == {0, 4, 5}


def test_what_is_passed_of_an_output_is_evicted_before_all_else():
    group, _ = passed_group(num_prompt_blocks=2)
    group.extend([[]] * 6)
    assert contents(group) == {0, 1}


def test_as_much_of_each_group_is_retained():
    engine = Engine(grouped((64, None), (32, 90)), max_retained_tokens=64)
    num_prefilled(engine, "r", PROMPT)
    assert [group.num_cached for group in engine.runner._memory._groups] == [11, 8]
    engine = Engine(grouped((64, 6)), max_retained_tokens=20)
    engine.submit("r", PROMPT, 60, ignore_eos=True)
    while engine.busy:
        engine.step()
        assert engine.stats.cached_tokens <= 20
    assert engine.stats.cached_tokens == 20


def test_a_cancelled_sequence_leaves_what_its_window_had_passed():
    engine = Engine(grouped((64, None), (64, 6)))
    engine.submit("r", PROMPT, 40, ignore_eos=True)
    engine.until(lambda: len(engine.answer("r").token_ids) == 3)
    engine.cancel("r")
    assert [group.num_cached for group in engine.runner._memory._groups] == [0, 9]
    assert engine.stats.used_tokens == 0
    assert num_prefilled(engine, "again", PROMPT) == 42


def test_who_is_long_starts_beside_others_where_its_window_fits():
    memory = memory_of(grouped((64, None), (10, 9), max_batch_tokens=16))
    first, second = sequence_of(PROMPT[::-1][:16]), sequence_of(PROMPT)
    assert memory.admit(first, 0)
    compute(memory, first, 16)
    # The first holds two blocks, so of its eleven the second can have eight at a time.
    assert most_held_blocks(9, SIZE, 1, 16) == 8
    assert memory.admit(second, 0)
    for num_tokens in (16, 16, 10):
        compute(memory, second, num_tokens)
    memory.check_integrity([first, second])


@pytest.mark.parametrize(
    ("why", "spoil"),
    [
        ("groups", lambda _, one: one.block_tables.pop()),
        ("groups", lambda _, one: one.block_tables.append([])),
        ("groups", lambda memory, one: memory._groups[1].extend([one.block_tables[1]])),
        ("without a block", lambda _, one: [table.pop() for table in one.block_tables]),
        ("passed", lambda _, one: one.block_tables[1].__setitem__(4, 0)),
        ("passed", lambda _, one: one.block_tables[1].__setitem__(5, -1)),
        ("passed", lambda _, one: one.block_tables[1].reverse()),
        ("owners", lambda _, one: one.block_tables[0].__setitem__(1, 19)),
    ],
)
def test_tables_that_are_not_as_they_must_be_are_noticed(why, spoil):
    memory = memory_of(grouped((20, None), (20, 6)))
    one = sequence_of(PROMPT[:30])
    assert memory.admit(one, 0)
    compute(memory, one, 30)
    memory.check_integrity([one])
    spoil(memory, one)
    with pytest.raises(AssertionError, match=why):
        memory.check_integrity([one])
