"""The parts under the memories, each alone: blocks, hashes, the tree of cells."""

import itertools

import pytest
from backplane_core.batching.block_pool import BlockPool
from backplane_core.batching.cell_tree import CellTree, common_end
from backplane_core.batching.prefix_cache import PrefixCache, block_hash, prefix_salt
from backplane_core.messages import MediaSegment, Submit, TokenSegment
from backplane_core.sampling import StoppingParams
from hypothesis import given, settings
from hypothesis import strategies as st


def request_of(*media, adapter=None, cache_salt=None):
    prompt = [TokenSegment(token_ids=[1])]
    prompt += [
        MediaSegment(media_id=str(index), modality="image", content_hash=content)
        for index, content in enumerate(media)
    ]
    return Submit(
        request_id="r",
        prompt=prompt,
        stopping=StoppingParams(max_new_tokens=1),
        adapter=adapter,
        cache_salt=cache_salt,
    )


def test_a_salt_tells_adapter_tenant_and_media_apart():
    requests = [
        request_of(),
        request_of(adapter=""),
        request_of(adapter="x"),
        request_of(cache_salt="x"),
        request_of(adapter="x", cache_salt="x"),
        request_of(b"x"),
        request_of(b"x", b"y"),
        request_of(b"y", b"x"),
        request_of(b"xy"),
    ]
    assert len({prefix_salt(request) for request in requests}) == len(requests)
    assert prefix_salt(request_of(b"x")) == prefix_salt(request_of(b"x"))


def test_a_block_is_named_by_all_that_precedes_it():
    first = block_hash(b"salt", [1, 2])
    assert first != block_hash(b"other", [1, 2])
    assert block_hash(first, [3, 4]) != block_hash(b"salt", [3, 4])
    assert block_hash(b"salt", [1, 2]) == first
    assert len(first) == 32


def test_the_least_recently_used_unowned_block_is_evicted():
    cache = PrefixCache()
    for block in range(4):
        cache.insert(bytes([block]), block)
    for block in (2, 0, 3):
        assert cache.keep(block)
    assert cache.num_unowned == 3
    cache.own(0)
    cache.keep(0)
    assert [cache.evict() for _ in range(3)] == [2, 3, 0]
    assert cache.find(bytes([0])) is None
    assert cache.find(bytes([1])) == 1


def test_the_first_block_of_a_content_keeps_the_name():
    cache = PrefixCache()
    cache.insert(b"x", 1)
    cache.insert(b"x", 2)
    assert cache.find(b"x") == 1
    assert not cache.keep(2)
    cache.forget(2)
    assert cache.find(b"x") == 1
    cache.forget(1)
    assert cache.find(b"x") is None


def test_a_block_pool_notices_what_is_lost_or_held_twice():
    pool = BlockPool(3)
    block = pool.take()
    owners = [0, 0, 0]
    owners[block] = 1
    pool.check_integrity(owners, set())
    with pytest.raises(AssertionError):
        pool.check_integrity([0, 0, 0], set())
    with pytest.raises(AssertionError):
        pool.check_integrity(owners, {block})
    assert pool.disown(block)
    with pytest.raises(AssertionError):
        pool.check_integrity([0, 0, 0], set())  # neither free nor cached
    pool.check_integrity([0, 0, 0], {block})
    pool.free(block)
    pool.free(block)
    with pytest.raises(AssertionError):
        pool.check_integrity([0, 0, 0], set())


@settings(derandomize=True, database=None, max_examples=300)
@given(
    common=st.lists(st.integers(0, 3), max_size=12),
    first=st.lists(st.integers(0, 3), max_size=12),
    second=st.lists(st.integers(0, 3), max_size=12),
)
def test_common_end_is_the_first_difference(common, first, second):
    first, second = common + first, common + second
    end = min(len(first), len(second))
    expected = next((at for at in range(end) if first[at] != second[at]), end)
    assert common_end(first, second, len(common), end) == expected


class CellModel:
    """A cell tree beside a model that names every cell."""

    def __init__(self):
        self.tree = CellTree()
        self.tails, self.cells, self.texts, self.running = {}, {}, {}, {}
        self.names = iter(range(10_000))

    def join(self, seq_id, number):
        if seq_id in self.tails:
            return
        limit = 3 + number
        text = [1, 2, 3, 1 + number % 2, 5, 6, 7 + number % 3, *range(20, 40)]
        match = self.tree.match(bytes([seq_id % 2]), text, limit, whole=False)
        known = [self.num_common(text[:limit], one) for one in self.tails if one % 2 == seq_id % 2]
        assert (match[0] if match else 0) == max(known, default=0)
        shared = self.cells[self.tree.any_owner(match[1])][: match[0]] if match else []
        if match:
            assert self.tree.num_revived(*match) == len(set(shared) - self.used)
        self.cells[seq_id] = shared
        self.tails[seq_id] = self.tree.join(seq_id, bytes([seq_id % 2]), match)
        self.texts[seq_id], self.running[seq_id] = text, True

    def extend(self, seq_id, number):
        if self.running.get(seq_id) and number:
            cells, text = self.cells[seq_id], self.texts[seq_id]
            end = len(cells) + number
            if end <= len(text):
                self.tails[seq_id] = self.tree.extend(seq_id, self.tails[seq_id], text, end)
                cells += [next(self.names) for _ in range(number)]

    def cut(self, seq_id, number):
        if seq_id in self.tails and number <= len(self.cells[seq_id]):
            self.tails[seq_id] = self.tree.cut(
                seq_id, self.tails[seq_id], number, running=self.running[seq_id]
            )
            del self.cells[seq_id][number:]

    def retire(self, seq_id, _number):
        if self.running.get(seq_id):
            self.tree.retire(self.tails[seq_id])
            self.running[seq_id] = False

    def leave(self, seq_id, _number):
        if seq_id in self.tails:
            tail, running = self.tails.pop(seq_id), self.running.pop(seq_id)
            self.tree.leave(seq_id, bytes([seq_id % 2]), tail, running=running)
            del self.cells[seq_id], self.texts[seq_id]

    @property
    def used(self):
        return {cell for one in self.cells if self.running[one] for cell in self.cells[one]}

    def num_common(self, text, seq_id):
        known = self.texts[seq_id][: len(self.cells[seq_id])]
        pairs = zip(text, known, strict=False)
        return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))

    def check(self):
        self.tree.check_integrity(
            {one: tail for one, tail in self.tails.items() if self.running[one]},
            {one: tail for one, tail in self.tails.items() if not self.running[one]},
        )
        owned = {cell for cells in self.cells.values() for cell in cells}
        counts = (self.tree.num_used, self.tree.num_cached)
        assert counts == (len(self.used), len(owned - self.used))
        for seq_id, tail in self.tails.items():
            assert tail.spelled() == self.texts[seq_id][: len(self.cells[seq_id])]


@settings(derandomize=True, database=None, max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "join", "extend", "extend", "cut", "retire", "leave"]),
            st.integers(0, 5),
            st.integers(0, 12),
        ),
        min_size=10,
        max_size=40,
    )
)
def test_a_cell_tree_counts_as_sets_of_cells_would(operations):
    model = CellModel()
    for operation, seq_id, number in operations:
        getattr(model, operation)(seq_id, number)
        model.check()
