"""Who computes when: arrivals during decode, order, priority, adapters, preemption, flat cost."""

import gc
import sys

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.batching.scheduler_settings import SchedulerSettings
from backplane_core.batching.sequence import SequenceState

from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout


def prompt_of(num_tokens, first=1):
    return [first, *(2 + (first * 7 + 5 * index) % 60 for index in range(num_tokens - 1))]


@pytest.mark.parametrize("layout", MemoryLayout)
@pytest.mark.parametrize("mixed", [True, False])
def test_a_request_submitted_mid_decode_gets_its_first_token_before_a_running_one_ends(
    layout, mixed
):
    engine = Engine(make_traits(layout, mixed_prefill=mixed), max_prefill_chunk=8)
    for index in range(4):
        engine.submit(f"running {index}", prompt_of(5, index), 40, ignore_eos=True)
    for _ in range(8):
        engine.step()
    engine.submit("late", prompt_of(20, 9), 40, ignore_eos=True)
    engine.until(lambda: engine.answer("late").token_ids)
    assert all(engine.answer(f"running {index}").finish_reason is None for index in range(4))
    # 20 tokens in chunks of 8 are three steps, or twice that where decodes go in between.
    assert engine.num_polls <= 8 + (3 if mixed else 6)


@pytest.mark.parametrize("layout", MemoryLayout)
def test_decodes_go_on_in_every_step_while_a_long_prompt_is_computed_in_chunks(layout):
    engine = Engine(make_traits(layout), max_prefill_chunk=4)
    engine.submit("short", prompt_of(3), 50, ignore_eos=True)
    engine.step()
    engine.submit("long", prompt_of(48, 9), 4, ignore_eos=True)
    before = len(engine.answer("short").token_ids)
    engine.until(lambda: engine.answer("long").token_ids)
    assert len(engine.answer("short").token_ids) - before == 48 // 4
    assert all(batch.num_tokens <= 1 + 4 for batch in engine.executor.batches[1:])


def test_a_batch_holds_decodes_first_and_no_more_tokens_than_it_may():
    engine = Engine(make_traits(PAGED, max_batch_tokens=10))
    engine.submit("first", prompt_of(25), 30, ignore_eos=True)
    engine.step()
    assert engine.executor.batches[-1].num_tokens == 10
    engine.until(lambda: engine.answer("first").token_ids)
    engine.submit("second", prompt_of(25, 2), 4, ignore_eos=True)
    engine.step()
    batch = engine.executor.batches[-1]
    assert [len(one.token_ids) for one in batch.sequences] == [1, 9]


@pytest.mark.parametrize("layout", MemoryLayout)
def test_drafts_take_no_more_of_a_batch_than_is_spare(layout):
    engine = Engine(make_traits(layout, max_batch_tokens=12, max_draft_tokens=3))
    for index in range(8):
        engine.submit(f"r{index}", prompt_of(3, index + 1), 30, ignore_eos=True)
    engine.run()  # the fake refuses a batch that is too large
    engine.check_alone()
    batches = engine.executor.batches
    drafted = [sum(one.num_draft_tokens for one in batch.sequences) for batch in batches]
    assert max(drafted) >= 4


def test_two_prompts_share_a_step_when_there_is_budget():
    engine = Engine(make_traits(CELLS))
    engine.submit("one", prompt_of(10), 2)
    engine.submit("two", prompt_of(10, 2), 2)
    engine.step()
    assert len(engine.executor.batches[-1].sequences) == 2


def test_equal_priorities_are_served_in_order_of_arrival():
    engine = Engine(make_traits(PAGED), max_running=1)
    for name in "abc":
        engine.submit(name, prompt_of(6), 3, ignore_eos=True)
    engine.run()
    starts = [engine.answer(name).steps[0] for name in "abc"]
    assert starts == sorted(starts)


def test_the_more_urgent_goes_first_even_past_a_prompt_half_computed():
    engine = Engine(make_traits(PAGED, max_batch_tokens=4))
    engine.submit("long", prompt_of(40), 3, ignore_eos=True, priority=1)
    engine.submit("later", prompt_of(6, 2), 3, ignore_eos=True, priority=1)
    engine.step()
    engine.submit("urgent", prompt_of(6, 3), 3, ignore_eos=True, priority=0)
    engine.run()
    first = {name: engine.answer(name).steps[0] for name in ("long", "later", "urgent")}
    assert first["urgent"] < first["long"] < first["later"]


def test_the_patient_are_served_in_the_end():
    engine = Engine(make_traits(PAGED), max_running=1, priority_aging_s=5.0)
    engine.submit("patient", prompt_of(4), 2, ignore_eos=True, priority=3)
    for index in range(40):
        engine.submit(f"urgent {index}", prompt_of(4, 2), 2, ignore_eos=True, priority=0)
        engine.step()
        engine.step()
        engine.clock.now_s += 1.0
        if engine.answer("patient").token_ids:
            break
    # Three steps of priority are worth fifteen seconds.
    assert 15 <= index <= 18


def test_each_adapter_has_its_turn_and_batches_mix_no_more_than_they_may():
    engine = Engine(make_traits(PAGED, adapters_per_batch=1))
    for adapter in ("a", "b", "c", None):
        engine.submit(f"{adapter}", prompt_of(5), 12, ignore_eos=True, adapter=adapter)
    for _ in range(24):
        engine.step()
    counts = [len(engine.answer(f"{adapter}").token_ids) for adapter in ("a", "b", "c", None)]
    assert counts == [6, 6, 6, 6]
    engine.run()
    engine.check_alone()


@pytest.mark.parametrize("mixed", [True, False])
def test_a_turn_that_ran_out_of_memory_is_not_used_up(mixed):
    traits = make_traits(PAGED, adapters_per_batch=1, mixed_prefill=mixed, cache_tokens=512)
    engine = Engine(traits)
    for place, adapter in enumerate(("a", "b", "c")):
        engine.submit(adapter, prompt_of(48, place), 2, ignore_eos=True, adapter=adapter)
    # Each batch fails once, and is tried again with half the tokens.
    for _ in range(6):
        engine.executor.out_of_memory = 1
        engine.step()
    assert [batch.adapters for batch in engine.executor.batches] == [("a",), ("b",), ("c",)] * 2
    engine.run()
    engine.check_alone()


def test_adapters_that_fit_into_one_batch_do_not_take_turns():
    engine = Engine(make_traits(PAGED, adapters_per_batch=2))
    for adapter in ("a", "b"):
        engine.submit(adapter, prompt_of(5), 12, ignore_eos=True, adapter=adapter)
    for _ in range(5):
        engine.step()
    assert [len(engine.answer(adapter).token_ids) for adapter in ("a", "b")] == [5, 5]
    assert engine.executor.batches[-1].adapters == ("a", "b")


@pytest.mark.parametrize("layout", [PAGED, CELLS])
def test_out_of_memory_the_least_urgent_and_then_the_youngest_goes(layout):
    engine = Engine(make_traits(layout, cache_tokens=48), headroom_tokens=0)
    engine.submit("least urgent", prompt_of(8, 1), 30, ignore_eos=True, priority=1)
    engine.submit("old", prompt_of(8, 2), 30, ignore_eos=True)
    engine.submit("young", prompt_of(8, 3), 30, ignore_eos=True)
    preempted = []
    while engine.busy:
        before = set(engine.runner._scheduler.running)
        engine.step()
        preempted += [
            sequence.request.request_id
            for sequence in before
            if sequence.state is SequenceState.WAITING
        ]
    assert preempted[0] == "least urgent"
    assert "young" in preempted
    assert "old" not in preempted
    assert engine.stats.num_preemptions == len(preempted)
    engine.check_alone()
    assert all(len(answer.token_ids) == 30 for answer in engine.answers.values())


@pytest.mark.parametrize("layout", [PAGED, CELLS])
def test_the_preempted_find_what_they_computed_as_far_as_it_was_not_needed(layout):
    engine = Engine(make_traits(layout, cache_tokens=300), headroom_tokens=0)
    engine.submit("old", prompt_of(8, 1), 200, ignore_eos=True)
    engine.submit("young", prompt_of(150, 2), 100, ignore_eos=True)
    engine.run()
    engine.check_alone()
    assert engine.stats.num_preemptions == 1
    # The young one had some 220 tokens in the cache when the old one needed 130 more.
    recomputed = engine.stats.num_prefilled_tokens - 158
    assert 0 < recomputed < 200


# The last cell goes to the decode or to the prompt, by turns.
@pytest.mark.parametrize("num_cells", [48, 49])
def test_an_urgent_prompt_does_not_wait_for_memory_that_a_later_one_holds(num_cells):
    traits = make_traits(CELLS, cache_tokens=num_cells)
    engine = Engine(traits, headroom_tokens=0, max_prefill_chunk=1)
    engine.submit("decoding", prompt_of(2, 1), 47, ignore_eos=True, priority=-2)
    engine.step()
    engine.submit("later", prompt_of(20, 2), 2, ignore_eos=True)
    for _ in range(5):
        engine.step()
    engine.submit("urgent", prompt_of(20, 3), 2, ignore_eos=True, priority=-1)
    submitted = engine.num_polls
    engine.until(lambda: engine.answer("urgent").token_ids)
    assert engine.stats.num_preemptions == 1
    assert engine.num_polls - submitted == 20


def test_admission_leaves_room_for_what_already_runs():
    """Without headroom the newcomer would be preempted at once, its prompt computed twice."""
    engine = Engine(make_traits(PAGED, cache_tokens=64), headroom_tokens=16)
    engine.submit("running", prompt_of(20), 40, ignore_eos=True)
    engine.step()
    engine.submit("newcomer", prompt_of(40, 2), 4, ignore_eos=True)
    engine.run()
    assert engine.stats.num_preemptions == 0
    assert engine.answer("newcomer").steps[0] > engine.answer("running").steps[-1]


@pytest.mark.parametrize(
    "settings", [{"max_prefill_chunk": 0}, {"priority_aging_s": 0.0}, {"headroom_tokens": -1}]
)
def test_settings_that_would_stall_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        SchedulerSettings(**settings)


def num_calls(engine) -> int:
    """Python and C calls that core's own code makes in one step: its cost, without a clock."""
    count = 0

    def profile(frame, event, _argument):
        nonlocal count
        # What comes between, a finalizer or another's hook, is not the step's.
        ours = frame.f_globals.get("__name__", "").startswith("backplane_core.")
        count += ours and event in {"call", "c_call"}

    gc.disable()
    sys.setprofile(profile)
    try:
        engine.runner.poll(0.0)
    finally:
        sys.setprofile(None)
        gc.enable()
    assert count
    return count


def test_a_step_costs_the_same_however_many_requests_wait():
    costs = []
    for num_waiting in (10, 3000):
        engine = Engine(make_traits(PAGED), max_running=2)
        for index in range(num_waiting):
            engine.submit(f"r{index}", prompt_of(5), 40, ignore_eos=True)
        engine.step()
        engine.step()
        costs.append(num_calls(engine))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("layout", [PAGED, CELLS])
def test_a_step_costs_the_same_however_much_is_cached(layout):
    costs = []
    for num_requests in (3, 120):
        engine = Engine(make_traits(layout, cache_tokens=120 * 16 + 64, max_sequences=200))
        for index in range(num_requests):
            engine.submit(f"r{index}", [1 + index // 90, 1 + index % 90, *prompt_of(10)], 2)
            engine.run()
        assert engine.stats.cached_tokens > num_requests * 8
        engine.submit("new", [90, 90, 90], 20, ignore_eos=True)
        engine.step()
        costs.append(num_calls(engine))
    assert costs[0] == costs[1]
