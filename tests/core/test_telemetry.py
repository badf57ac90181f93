"""Every observation lies in the bucket its bound says, and the counts tell what happened."""

import pytest
from backplane_core import telemetry
from backplane_core.telemetry import BOUNDS, DURATION_BOUNDS, BatchTelemetry


def test_durations_are_tgis_35_geometric_buckets() -> None:
    assert len(DURATION_BOUNDS) == 35
    for power, bound in enumerate(DURATION_BOUNDS):
        assert bound == pytest.approx(0.00015 * 1.5**power, rel=1e-12)
    # As TGI prints the first: its float, not the rounded one.
    assert repr(DURATION_BOUNDS[0]) == "0.00015000000000000001"


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_inclusive_and_what_lies_above_them_is_counted(name: str) -> None:
    bounds = BOUNDS[name]
    batches = BatchTelemetry()
    for bound in bounds:
        batches.observe(name, bound)
    batches.observe(name, bounds[-1] * 2)
    histogram = batches.histograms[name]
    assert histogram.counts == (1,) * (len(bounds) + 1)
    assert histogram.sum == pytest.approx(sum(bounds) + bounds[-1] * 2)


def test_a_value_between_two_bounds_belongs_to_the_upper() -> None:
    batches = BatchTelemetry()
    batches.observe("batch_forward/decode", (DURATION_BOUNDS[4] + DURATION_BOUNDS[5]) / 2)
    assert batches.histograms["batch_forward/decode"].counts.index(1) == 5


def test_steps_are_counted_by_method_and_failures_among_them() -> None:
    batches = BatchTelemetry()
    batches.succeeded("prefill", inference_s=0.5, forward_s=0.3, decode_s=0.1)
    batches.succeeded("decode", inference_s=0.05, forward_s=0.03, decode_s=0.01, filter_s=0.002)
    batches.failed("decode")
    assert batches.events == {"prefill": 1, "decode": 2, "decode_failure": 1}
    sums = {name: one.sum for name, one in batches.histograms.items()}
    assert sums == {
        "batch_inference/prefill": 0.5,
        "batch_forward/prefill": 0.3,
        "batch_decode/prefill": 0.1,
        "batch_inference/decode": 0.05,
        "batch_forward/decode": 0.03,
        "batch_decode/decode": 0.01,
        "batch_filter/decode": 0.002,
    }


def test_sequences_that_come_and_join_are_counted_as_sequences() -> None:
    batches = BatchTelemetry()
    batches.admitted(3)
    batches.joined(3, mixed=True, concat_s=0.001)
    batches.joined(2, mixed=False, concat_s=0.002)
    assert batches.events == {"concat_chunking": 3, "concat_backpressure": 2}
    assert batches.histograms[telemetry.NEXT_SIZE].counts[2] == 1
    assert sum(batches.histograms["batch_concat/decode"].counts) == 2


def test_a_step_without_speculation_skips_no_token() -> None:
    batches = BatchTelemetry()
    for num_tokens in (1, 1, 3):
        batches.produced(num_tokens)
    histogram = batches.histograms[telemetry.SKIPPED_TOKENS]
    assert histogram.counts[:3] == (2, 0, 1)
    assert histogram.sum == 2
