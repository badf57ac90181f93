"""`BatchingRunner`: stop rules, cancelling, deadlines, errors, refusals, waiting and counters."""

import threading
import time

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.errors import GenerationError, UnsupportedError, ValidationError
from backplane_core.messages import MediaSegment, Submit, TokenSegment
from backplane_core.sampling import StoppingParams

from tests.core.batching.fake_executor import ContractError
from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
PROMPT = [5, 6, 7, 8, 9, 10]


def distinct_position(tokens, low):
    """The first position from `low` whose token has not occurred before it."""
    return next(at for at in range(low, len(tokens)) if tokens[at] not in tokens[:at])


# ── stop rules ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("max_new_tokens", [1, 2, 17])
@pytest.mark.parametrize("num_drafts", [0, 3])
def test_max_new_tokens_is_exact(max_new_tokens, num_drafts):
    engine = Engine(make_traits(CELLS, max_draft_tokens=num_drafts))
    engine.submit("r", PROMPT, max_new_tokens, ignore_eos=True)
    engine.run()
    answer = engine.answer("r")
    assert len(answer.token_ids) == max_new_tokens
    assert answer.finish_reason == "length"


@pytest.mark.parametrize("num_drafts", [0, 4])
def test_an_end_token_ends_and_is_part_of_the_answer(num_drafts):
    probe = Engine(make_traits(PAGED)).lone(PROMPT, 20)
    end = distinct_position(probe, 5)
    engine = Engine(make_traits(PAGED, max_draft_tokens=num_drafts), eos=(probe[end],))
    engine.submit("r", PROMPT, 20)
    engine.run()
    assert engine.answer("r").token_ids == probe[: end + 1]
    assert engine.answer("r").finish_reason == "eos"


def test_an_end_token_on_the_last_token_allowed_is_reported_as_such():
    probe = Engine(make_traits(PAGED)).lone(PROMPT, 20)
    end = distinct_position(probe, 5)
    engine = Engine(make_traits(PAGED), eos=(probe[end],))
    engine.submit("r", PROMPT, end + 1)
    engine.run()
    assert engine.answer("r").finish_reason == "eos"


def test_ignored_end_tokens_do_not_end_but_stop_tokens_do():
    probe = Engine(make_traits(PAGED)).lone(PROMPT, 20)
    end = distinct_position(probe, 4)
    stop = distinct_position(probe, end + 1)
    engine = Engine(make_traits(PAGED), eos=(probe[end],))
    engine.submit("r", PROMPT, 20, ignore_eos=True, stop_token_ids=(probe[stop],))
    engine.run()
    assert engine.answer("r").token_ids == probe[: stop + 1]
    assert engine.answer("r").finish_reason == "stop_token"


@pytest.mark.parametrize("layout", MemoryLayout)
def test_what_speculation_wrote_past_the_end_is_cut_off_and_the_rest_reused(layout):
    plain = Engine(make_traits(layout))
    probe = plain.lone(PROMPT, 30)
    for end in [at for at in range(4, 24) if probe[at] not in probe[:at]]:
        engine = Engine(make_traits(layout, max_draft_tokens=4))
        engine.submit("r", PROMPT, 30, ignore_eos=True, stop_token_ids=(probe[end],))
        engine.run()
        assert engine.answer("r").token_ids == probe[: end + 1]
        # The follow-up reads every cell that was kept: a stale one would show.
        engine.submit("next", [*PROMPT, *probe[: end + 1], 3], 6, ignore_eos=True)
        engine.run()
        engine.check_alone()
        assert engine.answer("next").timing.num_cached_tokens >= (len(PROMPT) + end) // 4 * 4


def test_logprobs_come_with_the_tokens_they_belong_to():
    probe = Engine(make_traits(CELLS)).lone(PROMPT, 20)
    end = distinct_position(probe, 5)
    engine = Engine(make_traits(CELLS, max_draft_tokens=4))
    engine.submit("r", PROMPT, 20, stop_token_ids=(probe[end],), top_logprobs=1)
    while engine.busy:
        for delta in engine.step().deltas:
            assert delta.logprobs == [-1.0 - token_id for token_id in delta.token_ids]
            assert [top[0][0] for top in delta.top_logprobs] == delta.token_ids
    assert len(engine.answer("r").logprobs) == end + 1


def test_min_new_tokens_is_passed_to_the_sampler():
    for seed in range(40):
        engine = Engine(make_traits(PAGED), eos=(0,))
        engine.submit("r", PROMPT, 200, min_new_tokens=100, seed=seed)
        engine.run()
        assert len(engine.answer("r").token_ids) >= 100
        engine.check_alone()


# ── cancelling ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", MemoryLayout)
@pytest.mark.parametrize("num_steps", [0, 1, 2, 9])
def test_cancel_gives_the_memory_back_at_once(layout, num_steps):
    engine = Engine(make_traits(layout, max_batch_tokens=24))
    engine.submit("before", PROMPT, 4)
    engine.submit("running", [40, *PROMPT], 40, ignore_eos=True)
    for _ in range(6):
        engine.step()
    before = engine.stats
    engine.submit("r", [*PROMPT, *range(20, 50)], 20, ignore_eos=True, num_sequences=2)
    for _ in range(num_steps):
        engine.step()
    engine.cancel("r")
    after = engine.stats
    (running,) = engine.runner._scheduler.running
    block_size = engine.traits.block_size
    assert after.used_tokens == -(-running.num_computed_tokens // block_size) * block_size
    # What was cached before still is, but for a slot's tail, which its next sequence overwrote.
    assert after.cached_tokens <= before.cached_tokens
    assert layout is SLOTS or after.cached_tokens == before.cached_tokens
    assert after.running == 1
    assert after.waiting == 0
    assert after.num_cancelled == 2
    engine.run()
    assert engine.answer("running").finish_reason == "length"
    engine.check_alone()


def test_one_sequence_of_a_request_can_be_cancelled():
    engine = Engine(make_traits(CELLS))
    engine.submit("r", PROMPT, 20, num_sequences=3, ignore_eos=True)
    for _ in range(4):
        engine.step()
    engine.cancel("r", 1)
    num_tokens = len(engine.answer("r", 1).token_ids)
    engine.run()
    assert len(engine.answer("r", 1).token_ids) == num_tokens
    assert [len(engine.answer("r", index).token_ids) for index in (0, 2)] == [20, 20]
    engine.check_alone()


def test_cancelling_what_is_unknown_or_over_does_nothing():
    engine = Engine(make_traits(CELLS))
    engine.cancel("nobody")
    engine.submit("r", PROMPT, 2)
    engine.run()
    engine.cancel("r")
    engine.cancel("r", 0)
    assert engine.stats.num_cancelled == 0


# ── deadlines and errors ─────────────────────────────────────────────────────────────────


def test_a_deadline_ends_running_and_waiting_requests():
    engine = Engine(make_traits(PAGED), max_running=1)
    engine.submit("running", PROMPT, 100, ignore_eos=True, deadline=1005.0)
    engine.submit("waiting", PROMPT, 100, ignore_eos=True, deadline=1003.0)
    engine.submit("patient", PROMPT, 5, ignore_eos=True, deadline=1100.0)
    engine.step()
    engine.clock.now_s = 1004.0
    engine.step()
    assert set(engine.errors) == {"waiting"}
    engine.clock.now_s = 1006.0
    engine.run()
    assert {error.code for error in engine.errors.values()} == {"deadline_exceeded"}
    assert set(engine.errors) == {"waiting", "running"}
    assert engine.answer("patient").finish_reason == "length"
    assert engine.stats.num_failed == 2


def test_the_deadline_of_what_is_done_passes_unnoticed():
    engine = Engine(make_traits(PAGED))
    engine.submit("done", PROMPT, 3, ignore_eos=True, deadline=1005.0)
    engine.run()
    engine.clock.now_s = 1006.0
    engine.step()
    assert not engine.errors


def test_an_idle_runner_reports_an_expired_request_without_a_step():
    engine = Engine(make_traits(PAGED))
    engine.submit("r", PROMPT, 4, deadline=999.0)
    engine.step()
    assert engine.errors["r"].code == "deadline_exceeded"
    assert not engine.executor.batches


@pytest.mark.parametrize("layout", MemoryLayout)
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_out_of_memory_is_retried_with_less_and_nobody_fails(layout, times):
    engine = Engine(make_traits(layout))
    for index in range(4):
        engine.submit(f"r{index}", [index + 1, *PROMPT], 12, ignore_eos=True)
    for _ in range(3):
        engine.step()
    engine.submit("late", [50, *PROMPT], 12, ignore_eos=True)
    engine.executor.out_of_memory = times
    engine.run()
    assert not engine.errors
    engine.check_alone()
    assert all(len(answer.token_ids) == 12 for answer in engine.answers.values())


def test_out_of_memory_with_nothing_left_to_give_fails_that_request_alone():
    engine = Engine(make_traits(CELLS))
    engine.submit("first", PROMPT, 12, ignore_eos=True)
    engine.submit("second", [1, *PROMPT], 12, ignore_eos=True)
    engine.executor.out_of_memory = 12
    engine.run()
    assert [error.code for error in engine.errors.values()] == ["out_of_memory"] * len(
        engine.errors
    )
    assert 1 <= len(engine.errors) <= 2
    engine.executor.out_of_memory = 0
    engine.submit("third", PROMPT, 3, ignore_eos=True)
    engine.run()
    assert engine.answer("third").finish_reason == "length"


def test_out_of_memory_costs_the_cache_first():
    engine = Engine(make_traits(CELLS))
    engine.submit("cached", PROMPT, 4, ignore_eos=True)
    engine.run()
    engine.submit("running", [1, *PROMPT], 12, ignore_eos=True)
    engine.step()
    assert engine.stats.cached_tokens
    engine.executor.out_of_memory = 1
    engine.submit("late", [2, *PROMPT], 12, ignore_eos=True)
    engine.step()
    assert engine.stats.cached_tokens == 0
    assert engine.stats.num_preemptions == 0
    assert engine.executor.batches[-1].num_tokens == 1 + 7


def test_after_out_of_memory_chunks_grow_back():
    engine = Engine(make_traits(PAGED))
    engine.executor.out_of_memory = 2
    engine.submit("r", list(range(1, 91)), 2, ignore_eos=True)
    engine.run()
    assert [batch.num_tokens for batch in engine.executor.batches[:4]] == [8, 16, 32, 32]


def test_an_error_for_one_sequence_fails_its_request_and_no_other():
    engine = Engine(make_traits(CELLS))
    engine.submit("good", PROMPT, 10, ignore_eos=True)
    engine.submit("bad", PROMPT, 10, ignore_eos=True, num_sequences=3)
    for _ in range(4):
        engine.step()
    engine.executor.failing["bad"] = GenerationError("the mask took too long")
    engine.run()
    assert engine.errors["bad"].message == "the mask took too long"
    assert engine.answer("good").finish_reason == "length"
    assert engine.stats.num_failed == 3
    engine.check_alone()


def test_a_broken_engine_ends_the_runner(monkeypatch):
    engine = Engine(make_traits(CELLS))
    engine.submit("r", PROMPT, 10)

    def broken(batch):
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine.executor, "execute", broken)
    with pytest.raises(RuntimeError, match="device lost"):
        engine.runner.poll(0.0)


# ── refusals ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "error", "parameter"),
    [
        ({"kind": "embed"}, UnsupportedError, "kind"),
        ({"prompt_logprobs": 1}, UnsupportedError, "prompt_logprobs"),
        ({"adapter": "a"}, UnsupportedError, "adapter"),
        ({"num_sequences": 0}, ValidationError, "num_sequences"),
        ({"prompt": []}, ValidationError, "prompt"),
        ({"prompt": [TokenSegment(token_ids=[1] * 257)]}, ValidationError, "prompt"),
        ({"stopping": StoppingParams(max_new_tokens=256)}, ValidationError, "max_new_tokens"),
        ({"stopping": StoppingParams(max_new_tokens=0)}, ValidationError, "max_new_tokens"),
        (
            {"prompt": [MediaSegment(media_id="m", modality="image", content_hash=b"h")]},
            UnsupportedError,
            "prompt",
        ),
    ],
)
def test_what_can_not_be_served_is_refused_and_leaves_no_trace(fields, error, parameter):
    engine = Engine(make_traits(CELLS))
    good = {
        "request_id": "r",
        "prompt": [TokenSegment(token_ids=PROMPT)],
        "stopping": StoppingParams(max_new_tokens=4),
    }
    with pytest.raises(error) as caught:
        engine.runner.submit(Submit(**{**good, **fields}))
    assert caught.value.parameter == parameter
    assert not engine.busy
    engine.submit("r", PROMPT, 4)
    engine.run()


@pytest.mark.parametrize(
    ("layout", "limits"),
    [
        (PAGED, {}),
        (PAGED, {"slot_tokens": 90}),
        (PAGED, {"max_draft_tokens": 3}),
        (CELLS, {"max_draft_tokens": 3}),
        (SLOTS, {"max_draft_tokens": 3}),
        (CELLS, {}),
        (CELLS, {"slot_tokens": 90}),
        (CELLS, {"shareable": False}),
        (SLOTS, {}),
    ],
)
def test_a_sequence_that_just_fits_is_served(layout, limits):
    engine = Engine(make_traits(layout, **limits))
    capacity = engine.traits.slot_tokens
    engine.submit("r", list(range(1, 41)), capacity - 40 + 1, ignore_eos=True)
    engine.run()
    assert engine.answer("r").finish_reason == "length"
    with pytest.raises(ValidationError):
        engine.submit("too long", list(range(1, 41)), capacity - 40 + 2)


def test_a_request_id_in_use_is_refused():
    engine = Engine(make_traits(CELLS))
    engine.submit("r", PROMPT, 4)
    with pytest.raises(ValidationError):
        engine.submit("r", PROMPT, 4)


def test_an_executor_that_returns_too_many_tokens_is_broken(monkeypatch):
    engine = Engine(make_traits(CELLS))
    monkeypatch.setattr(engine.executor, "_num_accepted", lambda *_: 1)
    engine.submit("r", PROMPT, 4)
    with pytest.raises(GenerationError):
        engine.runner.poll(0.0)


# ── waiting, counters, closing ───────────────────────────────────────────────────────────


def test_an_idle_poll_waits_and_wake_ends_it():
    engine = Engine(make_traits(CELLS))
    start = time.monotonic()
    engine.runner.poll(0.05)
    assert time.monotonic() - start >= 0.04
    timer = threading.Timer(0.05, engine.runner.wake)
    timer.start()
    start = time.monotonic()
    engine.runner.poll(30.0)
    assert time.monotonic() - start < 10.0
    timer.join()


def test_a_wake_before_the_poll_is_not_lost_and_counts_once():
    engine = Engine(make_traits(CELLS))
    engine.runner.wake()
    start = time.monotonic()
    engine.runner.poll(30.0)
    assert time.monotonic() - start < 10.0
    start = time.monotonic()
    engine.runner.poll(0.05)
    assert time.monotonic() - start >= 0.04


def test_counters_and_gauges_say_what_happened():
    engine = Engine(make_traits(PAGED), max_running=1)
    engine.submit("one", PROMPT, 5, ignore_eos=True)
    engine.submit("two", [1, *PROMPT], 5, ignore_eos=True)
    engine.step()
    stats = engine.stats
    assert (stats.running, stats.waiting) == (1, 1)
    assert (stats.batch_tokens, stats.batch_sequences) == (6, 1)
    assert stats.used_tokens == 8
    engine.run()
    stats = engine.stats
    assert stats.num_prompt_tokens == stats.num_prefilled_tokens == 13
    assert stats.num_generated_tokens == 10
    assert stats.num_finished == 2
    assert stats.num_steps == len(engine.executor.batches) == 10
    assert stats.num_cached_tokens == 0


def test_timing_comes_with_the_first_token():
    engine = Engine(make_traits(PAGED, max_batch_tokens=4), max_running=1)
    engine.submit("one", PROMPT, 2, ignore_eos=True)
    engine.submit("two", PROMPT, 2, ignore_eos=True)
    while engine.busy:
        engine.step()
        engine.clock.now_s += 1.0
    one, two = engine.answer("one").timing, engine.answer("two").timing
    assert (one.queue_s, one.prefill_s, one.num_prompt_tokens) == (0.0, 1.0, 6)
    assert (two.queue_s, two.prefill_s, two.num_cached_tokens) == (3.0, 0.0, 4)


def test_close_closes_the_executor():
    engine = Engine(make_traits(PAGED))
    engine.runner.close()
    assert engine.executor.closed


def test_the_fake_executor_refuses_what_breaks_its_contract():
    engine = Engine(make_traits(CELLS))
    with pytest.raises(ContractError):
        engine.executor.trim(0, 3)
    with pytest.raises(ContractError):
        engine.executor.share_prefix(0, 1, 2)
