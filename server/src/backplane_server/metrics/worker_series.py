"""What workers say of themselves, as metrics: TGI's batch series and ours.

Gauges are of the workers that answer now, counters and histograms of all that ever did.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import PurePath
from typing import Final

from backplane_core import telemetry
from backplane_core.messages import Histogram, RunnerStats
from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString  # pyright: ignore[reportUnknownVariableType] -- not typed there

Number = int | float

_METHODS: Final = ("prefill", "decode")
_REASONS: Final = ("backpressure", "wait_exceeded", "chunking")

# Metric, its help, and the gauge of `RunnerStats` that is summed.
_GAUGES: Final = (
    ("tgi_queue_size", "Requests waiting in the workers.", "waiting"),
    ("tgi_batch_current_size", "Sequences running.", "running"),
    ("tgi_batch_current_max_tokens", "Cache tokens owned by running sequences.", "used_tokens"),
    ("backplane_batch_tokens", "Tokens of the workers' last steps.", "batch_tokens"),
    ("backplane_batch_sequences", "Sequences of the workers' last steps.", "batch_sequences"),
    ("backplane_cache_idle_tokens", "Cache tokens kept for reuse.", "cached_tokens"),
    ("backplane_cache_free_tokens", "Cache tokens not in use.", "free_tokens"),
)
# Metric, its help, and the counter of `RunnerStats` that is summed.
_COUNTERS: Final = (
    ("backplane_engine_steps", "Engine steps.", "num_steps"),
    ("backplane_prompt_tokens", "Prompt tokens of all requests.", "num_prompt_tokens"),
    ("backplane_prefilled_tokens", "Prompt tokens computed.", "num_prefilled_tokens"),
    ("backplane_cached_tokens", "Prompt tokens found in the cache.", "num_cached_tokens"),
    ("backplane_generated_tokens", "Tokens generated.", "num_generated_tokens"),
    ("backplane_accepted_draft_tokens", "Draft tokens accepted.", "num_skipped_tokens"),
    ("backplane_cancelled_sequences", "Sequences cancelled.", "num_cancelled"),
    ("backplane_failed_sequences", "Sequences failed in the engine.", "num_failed"),
    ("backplane_preemptions", "Sequences set back to make room.", "num_preemptions"),
)
# Metric, its help, `backplane_core.telemetry`'s name, and the methods it is told by.
_HISTOGRAMS: Final = (
    ("tgi_batch_next_size", "Sequences that left the queue together.", telemetry.NEXT_SIZE, ()),
    (
        "tgi_request_skipped_tokens",
        "Accepted draft tokens of a sequence's step.",
        telemetry.SKIPPED_TOKENS,
        (),
    ),
    ("tgi_batch_inference_duration", "A whole step.", telemetry.INFERENCE, _METHODS),
    ("tgi_batch_forward_duration", "The model in a step.", telemetry.FORWARD, _METHODS),
    ("tgi_batch_decode_duration", "Sampling in a step.", telemetry.DECODE, _METHODS),
    ("tgi_batch_filter_duration", "Taking out what ended.", telemetry.FILTER, _METHODS),
    ("tgi_batch_concat_duration", "Taking in what is new.", telemetry.CONCAT, ("decode",)),
)


def worker_series(
    records: Mapping[str, RunnerStats],
    now: Iterable[RunnerStats],
    *,
    capacity: int,
    num_ready: int,
) -> Iterable[Metric]:
    """Every series of the workers, whether there has been a worker or not.

    Args:
        records: the last of every worker's life, under `name_of_life`.
        now: what those that answer said just now.
        capacity: their caches' tokens.
        num_ready: how many there are.
    """
    present = list(now)
    for name, text, field in _GAUGES:
        yield GaugeMetricFamily(name, text, sum(getattr(stats, field) for stats in present))
    yield GaugeMetricFamily("tgi_batch_max_total_tokens", "Cache tokens there are.", capacity)
    yield GaugeMetricFamily("backplane_workers_ready", "Workers that answer.", num_ready)
    restarts = len(records) - len({life.partition("/")[0] for life in records})
    yield _counter("backplane_worker_restarts", "Workers that came up again.", {"": restarts})
    ever = list(records.values())
    for name, text, field in _COUNTERS:
        yield _counter(name, text, {"": sum(getattr(stats, field) for stats in ever)})
    yield from _batch_counters(ever)
    for name, text, source, methods in _HISTOGRAMS:
        yield _histogram(name, text, source, methods, ever)


def name_of_life(worker_id: str, socket_path: str) -> str:
    """A worker's process: each has a socket of its own."""
    return f"{worker_id}/{PurePath(socket_path).name}"


def _batch_counters(ever: Sequence[RunnerStats]) -> Iterable[Metric]:
    def total(event: str) -> int:
        return sum(stats.batches.get(event, 0) for stats in ever)

    def by_method(value: Callable[[str], int]) -> dict[str, Number]:
        return {method: value(method) for method in _METHODS}

    def failed(method: str) -> int:
        return total(f"{method}_failure")

    yield _counter("tgi_batch_inference_count", "Steps.", by_method(total), "method")
    yield _counter(
        "tgi_batch_inference_success",
        "Steps that computed.",
        by_method(lambda method: total(method) - failed(method)),
        "method",
    )
    yield _counter("tgi_batch_inference_failure", "Steps that failed.", by_method(failed), "method")
    yield _counter(
        "tgi_batch_concat",
        "Sequences that joined running ones.",
        {reason: total(f"concat_{reason}") for reason in _REASONS},
        "reason",
    )


def _counter(
    name: str, text: str, values: Mapping[str, Number], label: str | None = None
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label] if label else [])
    for label_value, value in values.items():
        family.add_metric([label_value] if label else [], value)
    return family


def _histogram(
    name: str, text: str, source: str, methods: Sequence[str], ever: Sequence[RunnerStats]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=["method"] if methods else [])
    for method in methods or ("",):
        key = f"{source}/{method}" if method else source
        bounds = (*telemetry.BOUNDS[key], float("inf"))
        told = [stats.histograms[key] for stats in ever if key in stats.histograms]
        told = [each for each in told if len(each.counts) == len(bounds)]
        counts = accumulate(_added(told, len(bounds)))
        family.add_metric(
            [method] if method else [],
            buckets=[
                (floatToGoString(bound), count) for bound, count in zip(bounds, counts, strict=True)
            ],
            sum_value=sum(each.sum for each in told),
        )
    return family


def _added(told: Sequence[Histogram], num_buckets: int) -> list[int]:
    columns = zip(*(each.counts for each in told), strict=True)
    return [sum(column) for column in columns] or [0] * num_buckets
