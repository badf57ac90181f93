"""What happens to requests, as numbers. Each request is counted once, whatever its dialect.

Names and buckets are TGI's; what TGI lacks begins with `backplane_`. With a folder, the numbers of
all servers that use it are told as sums, those of servers that are gone among them.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, cast, get_args

from backplane_core.capabilities import Limits
from backplane_core.messages import RunnerStats
from backplane_core.telemetry import DURATION_BOUNDS
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from backplane_server.metrics.tallies import TalliedCounter, TalliedHistogram
from backplane_server.metrics.worker_records import Records, WorkerRecords

# TGI's, and "unavailable", which TGI does not have as it refuses connections while it loads.
FailureLabel = Literal[
    "overloaded", "validation", "generation", "incomplete", "dropped", "template", "unavailable"
]

# How long what happened may wait to be told: thousands of requests a second are told in fifty goes.
_HAND_ON_S: Final = 0.02
_PARTS: Final = {"bucket": 1, "count": 2, "sum": 3}
_NUM_LINEAR: Final = 100
# Histograms whose buckets depend on the model: name and help.
_GENERATED: Final = ("tgi_request_generated_tokens", "Tokens generated.")
_INPUT: Final = ("tgi_request_input_length", "Tokens of the prompt.")
_MAX_NEW: Final = ("tgi_request_max_new_tokens", "Tokens allowed to generate.")


class Metrics:
    """One per server.

    Args:
        folder: shared by the servers of one launch; None keeps the numbers in this process. A
            process that gives one must have set `PROMETHEUS_MULTIPROC_DIR` to it before it
            imported prometheus_client, which puts every value into a file there.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = Path(folder) if folder else None
        self._registry = CollectorRegistry()
        self._records = WorkerRecords(self._folder)
        self._tallies: list[TalliedCounter | TalliedHistogram] = []
        self._handing_on: asyncio.TimerHandle | None = None
        self._requests = self._counter("tgi_request_count", "Requests that arrived.")
        self._successes = self._counter("tgi_request_success", "Requests answered in full.")
        failures = Counter(
            "tgi_request_failure", "Requests that failed.", ["err"], registry=self._registry
        )
        self._failures: dict[FailureLabel, TalliedCounter] = {
            label: self._tallied(failures.labels(label)) for label in get_args(FailureLabel)
        }
        self._duration = self._seconds("tgi_request_duration", "Arrival to end.")
        self._validation = self._seconds(
            "tgi_request_validation_duration", "Arrival to acceptance."
        )
        self._queue = self._seconds("tgi_request_queue_duration", "Acceptance to first step.")
        self._inference = self._seconds("tgi_request_inference_duration", "First step to end.")
        self._per_token = self._seconds(
            "tgi_request_mean_time_per_token_duration", "Inference over generated tokens."
        )
        self._first_token = self._seconds(
            "backplane_request_first_token_duration", "Arrival to first token."
        )
        self._between = self._seconds(
            "backplane_inter_token_duration", "A sequence's token after the one before."
        )
        in_flight = Gauge(
            "backplane_requests_in_flight",
            "Requests to generate that have arrived and not ended.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        in_flight.set(0)  # the file may be that of a process which had the same id
        self._in_flight = self._tallied(in_flight)
        self._generated: TalliedHistogram | None = None
        self._input: TalliedHistogram | None = None
        self._max_new: TalliedHistogram | None = None

    # ── requests ─────────────────────────────────────────────────────────────────────────

    def set_limits(self, limits: Limits) -> None:
        """Make the histograms whose buckets depend on the model; the first model decides."""
        if self._generated is not None:
            return
        self._generated = self._tokens(*_GENERATED, limits.max_total_tokens)
        self._input = self._tokens(*_INPUT, limits.max_input_tokens)
        self._max_new = self._tokens(*_MAX_NEW, limits.max_total_tokens)

    def arrived(self) -> None:
        """A request came in; `left` follows."""
        self._requests.add(1)
        self._in_flight.add(1)
        self._hand_on_soon()

    def arrived_only(self) -> None:
        """A request came in of which nothing else is told."""
        self._requests.add(1)
        self._hand_on_soon()

    def left(self) -> None:
        """A request that arrived is over, by whatever end."""
        self._in_flight.add(-1)
        self._hand_on_soon()

    def accepted(self, num_prompt_tokens: int, max_new_tokens: int) -> None:
        """A worker took a request, or one prompt of several."""
        if self._input is not None and self._max_new is not None:
            self._input.take(num_prompt_tokens)
            self._max_new.take(max_new_tokens)
            self._hand_on_soon()

    def first_token(self, seconds: float) -> None:
        """A request's first token is there. `left` follows, as to the next three."""
        self._first_token.take(seconds)

    def token_gaps(self, seconds: Iterable[float]) -> None:
        """Times between tokens of a sequence."""
        self._between.take_all(seconds)

    def succeeded(
        self,
        *,
        total_s: float,
        validation_s: float,
        queue_s: float,
        inference_s: float,
        num_tokens: int,
    ) -> None:
        """A request was answered in full."""
        self._successes.add(1)
        self._duration.take(total_s)
        self._validation.take(validation_s)
        self._queue.take(queue_s)
        self._inference.take(inference_s)
        self._per_token.take(inference_s / max(1, num_tokens))
        if self._generated is not None:
            self._generated.take(num_tokens)

    def failed(self, label: FailureLabel) -> None:
        """A request was refused, failed, or lost its client."""
        self._failures[label].add(1)

    def _hand_on_soon(self) -> None:
        if self._handing_on is None:
            loop = asyncio.get_running_loop()
            self._handing_on = loop.call_later(_HAND_ON_S, self.hand_on)

    def hand_on(self) -> None:
        """Put what happened where it is told from; every `_HAND_ON_S` it is done anyway."""
        if self._handing_on is not None:
            self._handing_on.cancel()
            self._handing_on = None
        for tally in self._tallies:
            tally.hand_on()

    # ── telling ──────────────────────────────────────────────────────────────────────────

    async def settle(self) -> None:
        """Wait until what has happened is told, in whichever server it happened."""
        self.hand_on()
        if self._folder is not None:
            await asyncio.sleep(2 * _HAND_ON_S)

    def note_workers(self, news: Mapping[str, RunnerStats]) -> Records:
        """Keep what workers just said, by their lives; every worker's last words. Reads files."""
        return self._records.update(news)

    def request_series(self) -> list[Metric]:
        """Every series of the servers, in the order of their names. Reads files."""
        families = {family.name: family for family in self._collect()}
        for name, text in (_GENERATED, _INPUT, _MAX_NEW):
            if name not in families:  # there has been no model yet
                families[name] = HistogramMetricFamily(name, text, [("+Inf", 0)], 0)
        for family in families.values():
            family.samples.sort(key=_place)
        return [families[name] for name in sorted(families)]

    def _collect(self) -> Iterable[Metric]:
        if self._folder is None:
            return self._registry.collect()
        _forget_gauges_of_the_dead(self._folder)
        files = [str(path) for path in self._folder.glob("*.db") if _has_begun(path)]
        return cast("Iterable[Metric]", MultiProcessCollector.merge(files))  # pyright: ignore[reportUnknownMemberType] -- not typed there

    # ── making ───────────────────────────────────────────────────────────────────────────

    def _tallied(self, told: Counter | Gauge) -> TalliedCounter:
        tally = TalliedCounter(told)
        self._tallies.append(tally)
        return tally

    def _counter(self, name: str, text: str) -> TalliedCounter:
        return self._tallied(Counter(name, text, registry=self._registry))

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> TalliedHistogram:
        histogram = TalliedHistogram(name, text, registry=self._registry, buckets=buckets)
        self._tallies.append(histogram)
        return histogram

    def _seconds(self, name: str, text: str) -> TalliedHistogram:
        return self._histogram(name, text, DURATION_BOUNDS)

    def _tokens(self, name: str, text: str, limit: int) -> TalliedHistogram:
        buckets = [limit / _NUM_LINEAR * step for step in range(1, _NUM_LINEAR + 1)]
        return self._histogram(name, text, buckets)


def _place(sample: Sample) -> tuple[list[tuple[str, str]], int, float]:
    """Where a sample stands in its family, however it was collected: buckets, count, sum."""
    labels = sorted((name, value) for name, value in sample.labels.items() if name != "le")
    part = sample.name.rpartition("_")[2]
    return labels, _PARTS.get(part, 0), float(sample.labels.get("le", 0.0))


def _forget_gauges_of_the_dead(folder: Path) -> None:
    """A gauge is of now, so it goes with its process; counters stay."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if not _lives(int(pid)):
            path.unlink(missing_ok=True)


def _has_begun(path: Path) -> bool:
    """Whether there is anything in it: a server that starts makes its files empty first."""
    with suppress(FileNotFoundError):
        return path.stat().st_size > 0
    return False


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
