"""`BatchingRunner`: a `ModelRunner` over an `Executor`: schedule → execute → commit.

A backend that can compute a batch needs no more than an `Executor` and, where the server has no
tokenizer of the model, a subclass with `tokenize`.
"""

import threading
import time
from collections.abc import Callable
from itertools import chain, islice

from backplane_core.batching.cell_memory import CellMemory
from backplane_core.batching.deadlines import Deadlines
from backplane_core.batching.executor import (
    Executor,
    ExecutorTraits,
    MemoryLayout,
    ScheduledBatch,
    StepResult,
)
from backplane_core.batching.held_requests import HeldRequests
from backplane_core.batching.memory import Memory, Retention
from backplane_core.batching.paged_memory import PagedMemory
from backplane_core.batching.prefix_cache import prefix_salt
from backplane_core.batching.request_check import check_request
from backplane_core.batching.request_group import RequestGroup
from backplane_core.batching.scheduler import Scheduler
from backplane_core.batching.scheduler_settings import SchedulerSettings
from backplane_core.batching.sequence import Sequence, SequenceState
from backplane_core.batching.slot_memory import SlotMemory
from backplane_core.batching.step_commit import Committer
from backplane_core.batching.step_counters import StepCounters, method_of
from backplane_core.errors import (
    BackplaneError,
    DeadlineExceededError,
    ErrorInfo,
    GenerationError,
    OutOfMemoryError,
    ValidationError,
)
from backplane_core.guidance.engine import GuidanceEngine
from backplane_core.messages import (
    Failed,
    PromptLogprobs,
    RunnerInfo,
    RunnerStats,
    StepOutput,
    Submit,
)
from backplane_core.runner import ModelRunner


class BatchingRunner(ModelRunner):
    """Continuous batching. Finished, failed and cancelled sequences give memory up at once.

    `clock` is monotonic seconds, `wall_clock` Unix seconds (deadlines come in these). Where the
    capabilities name grammars, a `GuidanceEngine` is made for the vocabulary unless one is given.
    """

    def __init__(
        self,
        executor: Executor,
        info: RunnerInfo,
        *,
        settings: SchedulerSettings | None = None,
        guidance: GuidanceEngine | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._executor = executor
        self._info = info
        self._settings = settings or SchedulerSettings()
        self._clock = clock
        self._wall_clock = wall_clock
        traits = executor.traits
        self._memory = _create_memory(traits, executor, self._settings)
        self._scheduler = Scheduler(
            traits, self._memory, self._settings, max_running=info.limits.max_sequences
        )
        self._committer = Committer(self._scheduler, self._memory, trimmable=traits.trimmable)
        self._counters = StepCounters()
        self._deadlines = Deadlines()
        if guidance is None and info.capabilities.grammars:
            guidance = GuidanceEngine(info.vocabulary)
        self._guidance = guidance
        self._held = HeldRequests()
        self._groups: dict[str, RequestGroup] = {}
        self._eos_token_ids = frozenset(info.vocabulary.eos_token_ids)
        self._num_submitted = 0
        self._woken = threading.Event()

    @property
    def info(self) -> RunnerInfo:
        """As given to the constructor."""
        return self._info

    def submit(self, request: Submit) -> None:
        """Queue a request.

        Raises:
            UnsupportedError: it asks for something the toolkit does not do.
            ValidationError: it is malformed or longer than the cache.
        """
        if request.request_id in self._groups:
            raise ValidationError(
                f"request id {request.request_id} is in use", parameter="request_id"
            )
        check_request(
            request,
            self._executor.traits,
            self._memory,
            self._info.model.backend,
            guided=self._guidance is not None,
        )
        now_s = self._clock()
        prompt = request.prompt_token_ids
        salt = prefix_salt(request)
        self._num_submitted += 1
        aged_arrival_s = now_s + request.priority * self._settings.priority_aging_s
        sequences = [
            Sequence(
                request=request,
                index=index,
                token_ids=list(prompt),
                num_prompt_tokens=len(prompt),
                eos_token_ids=self._eos_token_ids,
                prefix_salt=salt,
                rank=(aged_arrival_s, self._num_submitted, index),
                arrival_s=now_s,
            )
            for index in range(request.num_sequences)
        ]
        group = RequestGroup(request, sequences)
        self._groups[request.request_id] = group
        if request.grammar is not None and self._guidance is not None:
            for sequence in sequences:
                sequence.guide = self._guidance.guide(request.grammar, request.stopping, self.wake)
            self._held.add(group, until_s=now_s + self._guidance.limits.compile_s)
        if request.deadline is not None:
            left_s = request.deadline - self._wall_clock()
            self._deadlines.add(now_s + left_s, request.request_id)
        self._scheduler.add(group)

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """Forget a request, or one of its sequences; its memory is free on return.

        What it found in the cache stays there; what it computed does not, but for blocks that a
        window had passed.
        """
        group = self._groups.get(request_id)
        if group is None:
            return
        for sequence in group.sequences:
            wanted = index is None or sequence.index == index
            if wanted and sequence.state is not SequenceState.FINISHED:
                sequence.finish_reason = "cancelled"
                self._counters.num_cancelled += 1
                kept = min(sequence.num_matched_tokens, group.num_found_tokens)
                self._scheduler.finish(sequence, kept)
                _close_guide(sequence)
        self._drop_if_finished(group)

    def poll(self, timeout: float) -> StepOutput:
        """Run one step, or wait for work."""
        begin_s = self._clock()
        failures = self._fail_expired(begin_s) if self._deadlines else []
        if self._held:
            self._settle_held(failures, begin_s)
        batch = self._schedule(begin_s)
        if batch is None:
            if not failures:
                self._woken.wait(timeout)
                self._woken.clear()
            return StepOutput(failures=failures)
        while batch is not None:
            self._start(batch)
            start_s = self._clock()
            method = method_of(batch)
            try:
                result = self._executor.execute(batch)
            except OutOfMemoryError as error:
                self._counters.telemetry.failed(method)
                victim = self._scheduler.relieve(batch)
                if victim is not None:
                    failures.append(self._fail(victim.request.request_id, error))
                batch = self._schedule(self._clock())
            else:
                end_s = self._clock()
                num_counted = self._scheduler.succeeded(batch, (end_s - start_s) / result.num_steps)
                self._counters.count(batch, end_s - start_s, result.num_steps)
                output = self._commit(batch, result, failures, num_counted, end_s)
                done_s = self._clock()
                self._counters.telemetry.succeeded(
                    method,
                    inference_s=done_s - begin_s,
                    forward_s=end_s - start_s - result.sampling_s,
                    decode_s=result.sampling_s + done_s - end_s,
                    filter_s=self._committer.take_finish_s(),
                    num_steps=result.num_steps,
                )
                return output
        return StepOutput(failures=failures)

    def wake(self) -> None:
        """End a waiting `poll`. Any thread."""
        self._woken.set()

    def stats(self) -> RunnerStats:
        """Gauges and counters.

        Prompt and cached tokens count once per sequence, when it first starts; prefilled tokens
        are those computed, so that without preemptions prompt = cached + prefilled.
        """
        usage = self._memory.usage()
        counters = self._counters
        return RunnerStats(
            running=self._scheduler.num_running,
            waiting=self._scheduler.num_waiting_requests,
            used_tokens=usage.used,
            cached_tokens=usage.cached,
            free_tokens=usage.free,
            batch_tokens=counters.batch_tokens,
            batch_sequences=counters.batch_sequences,
            num_steps=counters.num_steps,
            num_prompt_tokens=counters.num_prompt_tokens,
            num_prefilled_tokens=counters.num_prefilled_tokens,
            num_cached_tokens=counters.num_cached_tokens,
            num_generated_tokens=counters.num_generated_tokens,
            num_finished=counters.num_finished,
            num_cancelled=counters.num_cancelled,
            num_failed=counters.num_failed,
            num_preemptions=self._scheduler.num_preemptions,
            prefill_seconds=counters.prefill_seconds,
            decode_seconds=counters.decode_seconds,
            num_skipped_tokens=counters.num_skipped_tokens,
            batches=counters.telemetry.events,
            histograms=counters.telemetry.histograms,
        )

    @property
    def num_steps(self) -> int:
        """Steps computed since start."""
        return self._counters.num_steps

    def close(self) -> None:
        """Free the executor, and let go of the grammars."""
        if self._guidance is not None:
            self._guidance.close()
        self._executor.close()

    def check_integrity(self) -> None:
        """Check that no memory and no sequence is lost. O(cache): for tests and debugging.

        Raises:
            AssertionError: free + cached + owned is not the capacity, or a queue is wrong.
        """
        self._scheduler.check_integrity()

    # ── one step ─────────────────────────────────────────────────────────────────────────

    def _schedule(self, begin_s: float) -> ScheduledBatch | None:
        """The step's batch; counts who left the queue for it."""
        scheduler, telemetry = self._scheduler, self._counters.telemetry
        num_before, num_running = scheduler.num_admitted, scheduler.num_running
        batch = scheduler.schedule()
        if num_admitted := scheduler.num_admitted - num_before:
            telemetry.admitted(num_admitted)
            if num_running:
                mixed = self._executor.traits.mixed_prefill
                telemetry.joined(num_admitted, mixed=mixed, concat_s=self._clock() - begin_s)
        return batch

    def _start(self, batch: ScheduledBatch) -> None:
        """Note who is in the cache for the first time."""
        for scheduled in batch.sequences[batch.num_decodes :]:
            sequence = scheduled.sequence
            if sequence.start_s is None:
                sequence.start_s = self._clock()
                sequence.num_cached_tokens = min(
                    sequence.num_matched_tokens, sequence.num_prompt_tokens
                )
                self._counters.started(sequence)

    def _commit(
        self,
        batch: ScheduledBatch,
        result: StepResult,
        failures: list[Failed],
        num_counted: int,
        now_s: float,
    ) -> StepOutput:
        reports: list[PromptLogprobs] = []
        if len(result.results) != len(batch.sequences):
            raise GenerationError(
                f"the engine answered {len(result.results)} of {len(batch.sequences)} sequences"
            )
        pairs = zip(batch.sequences, result.results, strict=True)
        deltas, others = self._committer.decodes(islice(pairs, num_counted))
        self._counters.produced(1, times=len(deltas))
        for scheduled, sampled in chain(others, pairs):
            sequence = scheduled.sequence
            if sequence.state is SequenceState.FINISHED:
                continue  # a sibling's failure, earlier in this batch, took it along
            if isinstance(sampled, BackplaneError):
                failures.append(self._fail(sequence.request_id, sampled))
                continue
            if sequence.request.prompt_logprobs is not None:
                group = self._groups[sequence.request_id]
                if report := group.report(scheduled, result.prompt_scores.get(scheduled.seq_id)):
                    reports.append(report)
            if sampled is not None:
                delta = self._committer.tokens(scheduled, sampled, now_s, batch.num_steps)
                self._counters.produced(len(delta.token_ids), num_steps=batch.num_steps)
                deltas.append(delta)
                if delta.finish_reason is not None:
                    self._counters.num_finished += 1
                    self._drop_if_finished(self._groups[delta.request_id])
            elif scheduled.sample:
                raise GenerationError("the engine sampled nothing where a token was asked for")
            else:
                self._committer.chunk(scheduled)
        return StepOutput(deltas=deltas, failures=failures, prompt_logprobs=reports)

    # ── ends ─────────────────────────────────────────────────────────────────────────────

    def _fail_expired(self, now_s: float) -> list[Failed]:
        return [
            self._fail(request_id, DeadlineExceededError("the request's deadline passed"))
            for request_id in self._deadlines.expired(now_s)
            if request_id in self._groups
        ]

    def _settle_held(self, failures: list[Failed], now_s: float) -> None:
        """Queue the requests whose grammars are ready, fail those whose cannot be."""
        for group, error in self._held.settled(now_s):
            if error is None:
                self._scheduler.release(group)
            else:
                failures.append(self._fail(group.request.request_id, error))

    def _fail(self, request_id: str, error: BackplaneError) -> Failed:
        group = self._groups[request_id]
        for sequence in group.sequences:
            if sequence.state is not SequenceState.FINISHED:
                self._counters.num_failed += 1
                self._scheduler.finish(sequence, 0)
                _close_guide(sequence)
        self._drop_if_finished(group)
        return Failed(request_id=request_id, error=ErrorInfo.of(error))

    def _drop_if_finished(self, group: RequestGroup) -> None:
        if not group.num_unfinished:
            del self._groups[group.request.request_id]
            self._held.discard(group.request.request_id)


def _close_guide(sequence: Sequence) -> None:
    if sequence.guide is not None:
        sequence.guide.close()


def _create_memory(
    traits: ExecutorTraits, executor: Executor, settings: SchedulerSettings
) -> Memory:
    limits = (settings.max_retained_tokens, settings.max_retained_sequences)
    retention = Retention(
        traits.cache_tokens if limits[0] is None else limits[0],
        traits.max_sequences if limits[1] is None else limits[1],
    )
    if not traits.reusable:
        retention = Retention(0, 0)
    if traits.layout is MemoryLayout.PAGED:
        return PagedMemory(traits, executor, retention)
    if traits.layout is MemoryLayout.CELLS and traits.shareable:
        return CellMemory(traits, executor, retention)
    return SlotMemory(traits, executor, retention)
