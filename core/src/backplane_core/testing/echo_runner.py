"""The echo backend's `ModelRunner`: a real queue, a real step loop, no model.

Independent of the batching toolkit on purpose, so that each can show the other's mistakes.
"""

import heapq
import threading
import time
from pathlib import Path

from backplane_core.errors import (
    AdapterError,
    BackplaneError,
    DeadlineExceededError,
    ErrorInfo,
    GenerationError,
    OutOfMemoryError,
    ValidationError,
)
from backplane_core.messages import (
    Failed,
    PromptLogprobs,
    RunnerInfo,
    RunnerStats,
    SequenceDelta,
    StepOutput,
    Submit,
)
from backplane_core.runner import ModelRunner
from backplane_core.telemetry import BatchTelemetry
from backplane_core.testing import echo_model
from backplane_core.testing.echo_faults import strike
from backplane_core.testing.echo_guidance import EchoGuides
from backplane_core.testing.echo_memory import EchoMemory
from backplane_core.testing.echo_settings import EchoSettings
from backplane_core.testing.echo_stream import EchoRequest, EchoSequence

_COUNTERS = (
    "num_steps",
    "num_prompt_tokens",
    "num_prefilled_tokens",
    "num_cached_tokens",
    "num_generated_tokens",
    "num_finished",
    "num_cancelled",
    "num_failed",
)


class EchoRunner(ModelRunner):
    """Repeats prompts, one token per sequence and step."""

    def __init__(self, info: RunnerInfo, settings: EchoSettings) -> None:
        self._info = info
        self._settings = settings
        self._memory = EchoMemory(info.limits.cache_tokens)
        self._adapters: dict[str, int] = {}
        self._requests: dict[str, EchoRequest] = {}
        self._due: dict[str, EchoRequest] = {}  # of these, those with a deadline
        self._waiting: list[tuple[int, int, EchoRequest]] = []
        self._num_submitted = 0
        self._prefilling: list[EchoRequest] = []
        self._decoding: list[EchoSequence] = []
        self._wake = threading.Event()
        self._guides = EchoGuides(info.vocabulary, self._wake.set)
        self._telemetry = BatchTelemetry()
        self._next_step = 0.0
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._batch = (0, 0)
        self._prefill_seconds = 0.0
        self._decode_seconds = 0.0

    @property
    def info(self) -> RunnerInfo:
        """See `ModelRunner`."""
        return self._info

    def submit(self, request: Submit) -> None:
        """See `ModelRunner`."""
        if request.adapter is not None and request.adapter not in self._adapters:
            raise AdapterError(
                f"no adapter {request.adapter} is loaded", remedy="load it, or ask without it"
            )
        limits = self._info.limits
        if request.num_sequences > limits.max_sequences:
            raise ValidationError(
                f"{request.num_sequences} sequences are more than the {limits.max_sequences} "
                "that run at a time",
                parameter="num_sequences",
            )
        rotation = self._adapters.get(request.adapter or "", 0)
        queued = EchoRequest(request, rotation, len(self._info.vocabulary.tokens))
        if queued.num_reserved > limits.cache_tokens:
            raise OutOfMemoryError(
                f"{queued.num_reserved} tokens are more than the cache's {limits.cache_tokens}",
                remedy="ask for fewer new tokens or sequences",
            )
        if request.grammar is not None:
            self._guides.hold(queued)
        self._requests[request.request_id] = queued
        if request.deadline is not None:
            self._due[request.request_id] = queued
        if request.grammar is None:
            self._queue(queued)

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """See `ModelRunner`."""
        request = self._requests.get(request_id)
        if request is None:
            return
        gone = [one for one in request.sequences if index is None or one.index == index]
        self._counters["num_cancelled"] += len(gone)
        for sequence in gone:
            self._remove(sequence)

    def poll(self, timeout: float) -> StepOutput:
        """See `ModelRunner`. Steps lie `step_seconds` apart."""
        failures = self._settle_guides()
        if failures:
            return StepOutput(failures=failures)
        if len(self._requests) == self._guides.num_held:
            self._wait(timeout)
            return StepOutput()
        delay = self._next_step - time.monotonic()
        if delay > 0.0:
            self._wait(min(delay, timeout))
            if time.monotonic() < self._next_step:
                return StepOutput()
        started = time.monotonic()
        pace = self._settings.step_seconds
        # A step that missed its turn moves the grid; it is not made up for by a burst.
        missed = started - self._next_step > pace
        self._next_step = (started if missed else self._next_step) + pace
        return self._step(started)

    def wake(self) -> None:
        """See `ModelRunner`."""
        self._wake.set()

    def stats(self) -> RunnerStats:
        """See `ModelRunner`."""
        memory = self._memory
        return RunnerStats(
            running=self._num_running,
            waiting=len(self._waiting) + self._guides.num_held,
            used_tokens=memory.used,
            cached_tokens=memory.retained,
            free_tokens=memory.capacity - memory.used - memory.retained,
            batch_tokens=self._batch[0],
            batch_sequences=self._batch[1],
            prefill_seconds=self._prefill_seconds,
            decode_seconds=self._decode_seconds,
            batches=self._telemetry.events,
            histograms=self._telemetry.histograms,
            **self._counters,
        )

    @property
    def num_steps(self) -> int:
        """See `ModelRunner`."""
        return self._counters["num_steps"]

    def close(self) -> None:
        """See `ModelRunner`."""
        self._guides.close()

    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        """See `ModelRunner`. UTF-8 bytes."""
        return [
            echo_model.tokenize(text, add_special=add_special, parse_special=parse_special)
            for text in texts
        ]

    def load_adapter(self, name: str, path: str) -> None:
        """See `ModelRunner`. The file holds how far to rotate printable characters."""
        try:
            self._adapters[name] = int(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AdapterError(f"adapter {name} at {path}: {error}") from error

    def unload_adapter(self, name: str) -> None:
        """See `ModelRunner`."""
        if self._adapters.pop(name, None) is None:
            raise AdapterError(f"no adapter {name} is loaded")

    # ── one step ─────────────────────────────────────────────────────────────────────────

    def _queue(self, request: EchoRequest) -> None:
        self._num_submitted += 1
        entry = request.request.priority, self._num_submitted, request
        heapq.heappush(self._waiting, entry)

    def _settle_guides(self) -> list[Failed]:
        """Queue the requests whose grammars are ready; fail those whose cannot be followed."""
        failures: list[Failed] = []
        for request, error in self._guides.settled():
            if error is None:
                self._queue(request)
            else:
                failures.append(self._fail((request, error)))
        return failures

    def _step(self, started: float) -> StepOutput:
        failures = [self._fail(one) for one in self._expired()]
        self._admit()
        failures += [self._fail(one) for one in strike(self._settings, self._decoding)]
        num_decodes = len(self._decoding)
        computing = time.monotonic()
        prompt_logprobs, num_prefilled = self._prefill(
            max(self._info.limits.max_batch_tokens - num_decodes, 1)
        )
        sampling = time.monotonic()
        deltas, unguided = self._sample()
        finishing = time.monotonic()
        failures += [self._fail(one) for one in unguided]
        num_ended = self._commit(deltas)
        ended = time.monotonic()
        counters = self._counters
        counters["num_steps"] += 1
        counters["num_generated_tokens"] += len(deltas)
        counters["num_prefilled_tokens"] += num_prefilled
        self._batch = (num_decodes + num_prefilled, max(len(deltas), num_decodes))
        self._prefill_seconds += sampling - started
        self._decode_seconds += ended - sampling
        self._telemetry.succeeded(
            "prefill" if num_prefilled else "decode",
            inference_s=ended - started,
            forward_s=sampling - computing,
            decode_s=finishing - sampling,
            filter_s=ended - finishing if num_ended else None,
        )
        self._telemetry.produced(1, times=len(deltas))
        return StepOutput(deltas=deltas, failures=failures, prompt_logprobs=prompt_logprobs)

    def _sample(self) -> tuple[list[SequenceDelta], list[tuple[EchoRequest, BackplaneError]]]:
        """The next token of each sequence; requests whose grammar fails come to nothing."""
        deltas: list[SequenceDelta] = []
        failed: dict[EchoRequest, BackplaneError] = {}
        for sequence in self._decoding:
            try:
                deltas.append(sequence.advance())
            except BackplaneError as error:
                failed[sequence.owner] = error
        if failed:
            gone = {request.request.request_id for request in failed}
            deltas = [delta for delta in deltas if delta.request_id not in gone]
        return deltas, list(failed.items())

    def _admit(self) -> None:
        limits = self._info.limits
        before = num_running = self._num_running
        began = time.monotonic()
        while self._waiting:
            request = self._waiting[0][2]
            size = len(request.sequences)
            # Looked up before room is made, since making room forgets prefixes.
            cached = self._known_prefix(request)
            if num_running + size > limits.max_sequences:
                break
            if not self._memory.take(request.num_reserved):
                break
            num_running += size
            heapq.heappop(self._waiting)
            request.num_cached = cached
            request.start_s = time.monotonic()
            self._prefilling.append(request)
            self._counters["num_prompt_tokens"] += len(request.prompt)
            self._counters["num_cached_tokens"] += cached
        if num_admitted := num_running - before:
            self._telemetry.admitted(num_admitted)
            if before:
                concat_s = time.monotonic() - began
                self._telemetry.joined(num_admitted, mixed=True, concat_s=concat_s)

    @property
    def _num_running(self) -> int:
        return len(self._decoding) + sum(len(one.sequences) for one in self._prefilling)

    def _known_prefix(self, request: EchoRequest) -> int:
        if request.request.prompt_logprobs is not None:
            return 0  # every prompt token's logits are wanted
        return self._memory.known_prefix(request.request, request.prompt)

    def _prefill(self, budget: int) -> tuple[list[PromptLogprobs], int]:
        reports: list[PromptLogprobs] = []
        num_prefilled = 0
        while self._prefilling and num_prefilled < budget:
            request = self._prefilling[0]
            size = min(request.num_uncomputed, budget - num_prefilled)
            start = request.num_cached + request.num_prefilled
            if request.request.prompt_logprobs is not None:
                reports.append(request.prompt_logprobs(start, start + size))
            request.num_prefilled += size
            num_prefilled += size
            if request.num_uncomputed:
                break
            del self._prefilling[0]
            self._memory.retain(request.request, request.prompt)
            self._decoding.extend(request.sequences)
        return reports, num_prefilled

    def _commit(self, deltas: list[SequenceDelta]) -> int:
        """Take out the sequences that ended; how many."""
        ended = [
            sequence
            for sequence, delta in zip(self._decoding, deltas, strict=True)
            if delta.finish_reason is not None
        ]
        self._counters["num_finished"] += len(ended)
        for sequence in ended:
            self._remove(sequence)
        return len(ended)

    # ── ends ─────────────────────────────────────────────────────────────────────────────

    def _remove(self, sequence: EchoSequence) -> None:
        request = sequence.owner
        before = request.num_reserved
        request.sequences.remove(sequence)
        waiting = request.start_s == 0.0
        if sequence in self._decoding:
            self._decoding.remove(sequence)
        if sequence.guide is not None:
            sequence.guide.close()
        if request.sequences:
            freed = before - request.num_reserved
        else:
            freed = before
            del self._requests[request.request.request_id]
            self._due.pop(request.request.request_id, None)
            self._guides.forget(request)
            if waiting:
                self._waiting = [entry for entry in self._waiting if entry[2] is not request]
                heapq.heapify(self._waiting)
            elif request in self._prefilling:
                self._prefilling.remove(request)
        if not waiting:
            self._memory.give(freed)
            if not request.sequences and not request.num_uncomputed:
                self._memory.retain(request.request, request.prompt)

    def _fail(self, failure: tuple[EchoRequest, BackplaneError]) -> Failed:
        request, error = failure
        for sequence in list(request.sequences):
            self._remove(sequence)
        self._counters["num_failed"] += 1
        return Failed(request_id=request.request.request_id, error=ErrorInfo.of(error))

    def _expired(self) -> list[tuple[EchoRequest, GenerationError]]:
        if not self._due:
            return []
        now = time.time()
        return [
            (request, DeadlineExceededError("the request's deadline passed"))
            for request in self._due.values()
            if request.request.deadline is not None and request.request.deadline < now
        ]

    def _wait(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()
