"""The parts under the memories, each alone: blocks, hashes, the tree of cells."""

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


@settings(derandomize=True, database=None, max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "extend", "cut", "retire", "leave"]),
            st.integers(0, 5),
            st.integers(0, 12),
        ),
        max_size=40,
    )
)
def test_a_cell_tree_counts_as_sets_of_cells_would(operations):
    """Against a model that names every cell."""
    tree = CellTree()
    tails, cells, texts, running = {}, {}, {}, {}
    names = iter(range(10_000))
    for operation, seq_id, number in operations:
        salt = bytes([seq_id % 2])
        if operation == "join" and seq_id not in tails:
            text = [1, 2, 3, 1 + number % 2, 5, 6, 7 + number % 3, *range(20, 40)]
            match = tree.match(salt, text, 3 + number, whole=False)
            end = match[0] if match else 0
            known = [
                sum(1 for _ in takewhile_equal(text[: 3 + number], texts[other], len(cells[other])))
                for other in tails
                if other % 2 == seq_id % 2
            ]
            assert end == max(known, default=0)
            if match:
                revived = tree.num_revived(*match)
            owner = tree.any_owner(match[1]) if match else None
            cells[seq_id] = list(cells[owner][:end]) if match else []
            if match:
                used = {cell for one in running if running[one] for cell in cells[one]}
                assert revived == len(set(cells[seq_id]) - used)
            tails[seq_id] = tree.join(seq_id, salt, match)
            texts[seq_id], running[seq_id] = text, True
        elif seq_id not in tails:
            continue
        elif operation == "extend" and running[seq_id] and number:
            end = min(len(cells[seq_id]) + number, len(texts[seq_id]))
            if end > len(cells[seq_id]):
                tails[seq_id] = tree.extend(seq_id, tails[seq_id], texts[seq_id], end)
                cells[seq_id] += [next(names) for _ in range(end - len(cells[seq_id]))]
        elif operation == "cut" and number <= len(cells[seq_id]):
            tails[seq_id] = tree.cut(seq_id, tails[seq_id], number, running=running[seq_id])
            del cells[seq_id][number:]
        elif operation == "retire" and running[seq_id]:
            tree.retire(tails[seq_id])
            running[seq_id] = False
        elif operation == "leave":
            tree.leave(seq_id, salt, tails.pop(seq_id), running=running.pop(seq_id))
            del cells[seq_id], texts[seq_id]
        tree.check_integrity(
            {one: tail for one, tail in tails.items() if running[one]},
            {one: tail for one, tail in tails.items() if not running[one]},
        )
        used = {cell for one in cells if running[one] for cell in cells[one]}
        owned = {cell for one in cells for cell in cells[one]}
        assert (tree.num_used, tree.num_cached) == (len(used), len(owned - used))
        assert all(tails[one].end == len(cells[one]) for one in tails)


def takewhile_equal(first, second, limit):
    for one, other in zip(first, second[:limit], strict=False):
        if one != other:
            return
        yield one
