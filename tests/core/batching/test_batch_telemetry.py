"""What a runner counts of its steps, held against what was done."""

import math

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.telemetry import BOUNDS

from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
PROMPT = list(range(10, 31))


def observed(stats, name):
    histogram = stats.histograms.get(name)
    return 0 if histogram is None else sum(histogram.counts)


def test_steps_are_counted_by_what_they_computed():
    engine = Engine(make_traits(CELLS, max_batch_tokens=8))
    engine.submit("r", PROMPT, 5, ignore_eos=True)
    engine.run()
    stats = engine.stats
    # 21 tokens in chunks of 8, the last of which samples; four decodes follow.
    assert stats.batches == {"prefill": 3, "decode": 4}
    for part in ("inference", "forward", "decode"):
        assert observed(stats, f"batch_{part}/prefill") == 3
        assert observed(stats, f"batch_{part}/decode") == 4
    # One sequence ended, in a decode.
    assert observed(stats, "batch_filter/decode") == 1
    assert observed(stats, "batch_filter/prefill") == 0
    assert all(len(one.counts) == len(BOUNDS[name]) + 1 for name, one in stats.histograms.items())


def test_who_leaves_the_queue_together_and_who_joins_running_ones():
    engine = Engine(make_traits(CELLS))
    for name in ("a", "b"):
        engine.submit(name, PROMPT[:5], 8, ignore_eos=True)
    engine.step()
    engine.step()
    for name in ("c", "d", "e"):
        engine.submit(name, PROMPT[5:8], 4, ignore_eos=True)
    engine.run()
    next_size = engine.stats.histograms["batch_next_size"]
    assert (sum(next_size.counts), next_size.sum) == (2, 5.0)
    assert engine.stats.batches["concat_chunking"] == 3
    assert "concat_backpressure" not in engine.stats.batches
    assert observed(engine.stats, "batch_concat/decode") == 1


def test_decodes_that_wait_for_a_prefill_are_backpressure():
    engine = Engine(make_traits(PAGED, mixed_prefill=False))
    engine.submit("a", PROMPT[:5], 8, ignore_eos=True)
    engine.step()
    engine.submit("b", PROMPT[5:8], 4, ignore_eos=True)
    engine.run()
    assert engine.stats.batches["concat_backpressure"] == 1
    assert "concat_chunking" not in engine.stats.batches


def test_steps_without_memory_are_failures():
    engine = Engine(make_traits(CELLS))
    engine.submit("r", PROMPT, 5, ignore_eos=True)
    engine.executor.out_of_memory = 1
    engine.run()
    assert engine.stats.batches["prefill_failure"] == 1
    # The failed one is among those begun, and has no duration.
    assert engine.stats.batches["prefill"] == 1 + observed(engine.stats, "batch_forward/prefill")


def test_accepted_drafts_are_the_skipped_tokens():
    engine = Engine(make_traits(CELLS, max_draft_tokens=3))
    engine.submit("r", PROMPT, 40, ignore_eos=True)
    engine.run()
    stats = engine.stats
    num_steps = len(set(engine.answer("r").steps))
    assert stats.num_skipped_tokens == 40 - num_steps > 0
    skipped = stats.histograms["request_skipped_tokens"]
    assert (sum(skipped.counts), skipped.sum) == (num_steps, 40.0 - num_steps)


@pytest.mark.parametrize("layout", MemoryLayout)
def test_counters_never_fall(layout):
    engine = Engine(make_traits(layout))
    for number in range(4):
        engine.submit(f"r{number}", PROMPT[number:], 6, num_sequences=2)
    last = engine.stats
    while engine.busy:
        engine.step()
        now = engine.stats
        for name, count in last.batches.items():
            assert now.batches[name] >= count
        for name, histogram in last.histograms.items():
            pairs = zip(now.histograms[name].counts, histogram.counts, strict=True)
            assert all(new >= old for new, old in pairs)
            assert math.isfinite(now.histograms[name].sum)
        last = now
    assert engine.runner.num_steps == last.num_steps
