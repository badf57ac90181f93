"""What is in the cache is not computed again: counted in prefilled tokens, layout by layout."""

import pytest
from backplane_core.batching.executor import MemoryLayout

from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
PROMPT = list(range(10, 31))  # 21 tokens: five blocks of 4, and one more


def num_prefilled(engine, request_id, prompt, **fields):
    before = engine.stats.num_prefilled_tokens
    engine.submit(request_id, prompt, 6, ignore_eos=True, **fields)
    engine.run()
    engine.check_alone()
    return engine.stats.num_prefilled_tokens - before


@pytest.mark.parametrize(("layout", "again"), [(PAGED, 1), (CELLS, 1), (SLOTS, 1)])
def test_the_same_prompt_again_computes_what_must_be(layout, again):
    engine = Engine(make_traits(layout))
    assert num_prefilled(engine, "first", PROMPT) == 21
    assert num_prefilled(engine, "second", PROMPT) == again
    assert engine.answer("second").timing.num_cached_tokens == 21 - again


@pytest.mark.parametrize(("layout", "known"), [(PAGED, 12), (CELLS, 13), (SLOTS, 13)])
def test_a_common_prefix_is_reused_by_block_or_by_token(layout, known):
    engine = Engine(make_traits(layout), max_retained_sequences=1 if layout is SLOTS else None)
    num_prefilled(engine, "first", PROMPT)
    other = [*PROMPT[:13], *range(50, 60)]
    assert num_prefilled(engine, "second", other) == len(other) - known


@pytest.mark.parametrize(("layout", "known"), [(PAGED, 24), (CELLS, 26), (SLOTS, 26)])
def test_the_next_turn_of_a_conversation_reuses_prompt_and_answer(layout, known):
    engine = Engine(make_traits(layout))
    num_prefilled(engine, "first", PROMPT)
    # The last token of an answer was never computed.
    turn = [*PROMPT, *engine.answer("first").token_ids, 1, 2, 3]
    assert num_prefilled(engine, "second", turn) == len(turn) - known


@pytest.mark.parametrize(("layout", "known"), [(PAGED, 20), (CELLS, 20)])
def test_a_running_sequence_shares_what_it_has_computed(layout, known):
    engine = Engine(make_traits(layout))
    engine.submit("running", PROMPT, 60, ignore_eos=True)
    engine.step()
    used = engine.stats.used_tokens
    engine.submit("second", PROMPT, 30, ignore_eos=True)
    engine.step()
    assert engine.answer("second").timing.num_cached_tokens == known
    # Shared cells count once: the second adds its own token, and the first its newest.
    block = engine.traits.block_size
    assert engine.stats.used_tokens <= used + 2 * block
    engine.run()
    engine.check_alone()


@pytest.mark.parametrize("layout", [PAGED, CELLS])
def test_a_prompt_that_is_still_being_computed_is_shared_as_far_as_it_is(layout):
    engine = Engine(make_traits(layout, max_batch_tokens=13))
    engine.submit("first", PROMPT, 5, ignore_eos=True)
    engine.step()
    engine.submit("urgent", PROMPT, 5, ignore_eos=True, priority=-1)
    engine.run()
    engine.check_alone()
    assert engine.answer("urgent").timing.num_cached_tokens == (12 if layout is PAGED else 13)


@pytest.mark.parametrize("layout", MemoryLayout)
@pytest.mark.parametrize("fields", [{"cache_salt": "tenant"}, {"adapter": "a"}])
def test_other_tenants_and_other_adapters_share_nothing(layout, fields):
    engine = Engine(make_traits(layout, adapters_per_batch=2))
    num_prefilled(engine, "first", PROMPT)
    assert num_prefilled(engine, "second", PROMPT, **fields) == 21
    assert num_prefilled(engine, "third", PROMPT, **fields) < 21


@pytest.mark.parametrize("layout", MemoryLayout)
def test_nothing_is_retained_where_nothing_may_be(layout):
    engine = Engine(make_traits(layout), max_retained_tokens=0)
    num_prefilled(engine, "first", PROMPT)
    assert engine.stats.cached_tokens == 0
    assert num_prefilled(engine, "second", PROMPT) == 21


@pytest.mark.parametrize("layout", MemoryLayout)
def test_the_retained_are_bounded_and_the_oldest_go_first(layout):
    engine = Engine(make_traits(layout), max_retained_tokens=64)
    for first in range(4):
        num_prefilled(engine, f"r{first}", [first + 1, *PROMPT[1:]])
        assert engine.stats.cached_tokens <= 64
    assert num_prefilled(engine, "newest", [4, *PROMPT[1:]]) == 1
    assert num_prefilled(engine, "oldest", [1, *PROMPT[1:]]) == 21


def test_retained_sequence_ids_are_bounded():
    engine = Engine(make_traits(CELLS), max_retained_sequences=2)
    for first in range(5):
        num_prefilled(engine, f"r{first}", [first + 1, *PROMPT[1:]])
    assert engine.stats.cached_tokens == 2 * 26


def test_use_makes_recent():
    engine = Engine(make_traits(CELLS), max_retained_sequences=2)
    num_prefilled(engine, "a", [1, *PROMPT])
    num_prefilled(engine, "b", [2, *PROMPT])
    num_prefilled(engine, "a again", [1, *PROMPT])
    num_prefilled(engine, "c", [3, *PROMPT])
    assert num_prefilled(engine, "a once more", [1, *PROMPT]) == 1
    assert num_prefilled(engine, "b again", [2, *PROMPT]) == 22


@pytest.mark.parametrize("layout", [PAGED, CELLS])
def test_eviction_takes_the_end_of_a_sequence_before_its_beginning(layout):
    engine = Engine(make_traits(layout, cache_tokens=160), headroom_tokens=0)
    long = [1 + index % 90 for index in range(120)]
    engine.submit("long", long, 1)
    engine.run()
    engine.submit("other", list(range(90, 30, -1)), 4, ignore_eos=True)
    engine.run()
    cached = engine.stats.num_cached_tokens
    engine.submit("long again", long, 1)
    engine.run()
    assert engine.stats.num_cached_tokens - cached >= 48
    engine.check_alone()


def test_retained_cells_give_way_to_running_sequences():
    engine = Engine(make_traits(CELLS, cache_tokens=100), headroom_tokens=0)
    for first in range(3):
        num_prefilled(engine, f"r{first}", [first + 1, *PROMPT[1:]])
    engine.submit("big", list(range(90, 10, -1)), 21, ignore_eos=True)
    engine.run()
    engine.check_alone()
    assert engine.stats.num_preemptions == 0


def test_a_taken_over_slot_is_trimmed_only_where_that_is_possible():
    for trimmable, cached in ((True, 13), (False, 0)):
        engine = Engine(make_traits(SLOTS, max_sequences=1, cache_tokens=64, trimmable=trimmable))
        num_prefilled(engine, "first", PROMPT)
        num_prefilled(engine, "second", [*PROMPT[:13], 60, 61])
        assert engine.answer("second").timing.num_cached_tokens == cached


@pytest.mark.parametrize("layout", [CELLS, SLOTS])
def test_what_cannot_be_trimmed_is_continued_whole(layout):
    engine = Engine(make_traits(layout, trimmable=False))
    num_prefilled(engine, "first", PROMPT)
    turn = [*PROMPT, *engine.answer("first").token_ids, 1, 2, 3]
    assert num_prefilled(engine, "second", turn) == 4


def test_when_ids_are_short_the_one_to_be_shared_is_not_the_one_that_goes():
    engine = Engine(make_traits(CELLS, max_sequences=2))
    num_prefilled(engine, "a", [1, *PROMPT])
    num_prefilled(engine, "b", [2, *PROMPT])
    assert num_prefilled(engine, "a again", [1, *PROMPT]) == 1


def test_what_is_all_a_prefix_of_another_takes_up_no_id():
    engine = Engine(make_traits(CELLS), max_retained_sequences=2)
    num_prefilled(engine, "a", [1, *PROMPT])
    num_prefilled(engine, "b", [2, *PROMPT])
    engine.submit("cancelled", [2, *PROMPT], 6)
    engine.step()
    engine.cancel("cancelled")
    assert num_prefilled(engine, "a again", [1, *PROMPT]) == 1


@pytest.mark.parametrize("layout", MemoryLayout)
def test_where_nothing_is_reusable_nothing_is_kept(layout):
    engine = Engine(make_traits(layout, reusable=False))
    assert num_prefilled(engine, "first", PROMPT) == 21
    assert engine.stats.cached_tokens == 0
    assert num_prefilled(engine, "second", PROMPT) == 21
