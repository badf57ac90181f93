# ruff: noqa: INP001 -- a plugin may be a lone module
"""A whole backend in one module: an engine that batches by itself, behind `ModelRunner`.

Its model says the prompt backwards. It is sure of every token, so it has nothing to sample.
"""

import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from backplane_core.backend import (
    Available,
    Backend,
    Device,
    ModelSource,
    Native,
    ProgressSink,
    RunnerSpec,
    Support,
    Unsupported,
    setting,
)
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.errors import DeadlineExceededError, ErrorInfo, ModelError
from backplane_core.hookspecs import RegisterBackend, hookimpl
from backplane_core.messages import (
    Failed,
    FinishReason,
    ModelInfo,
    RunnerInfo,
    RunnerStats,
    SequenceDelta,
    SequenceTiming,
    StepOutput,
    Submit,
)
from backplane_core.runner import ModelRunner
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary

END, END_TEXT = 256, "<end>"  # the token ids are bytes, and one more for the end
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@dataclass
class Job:
    """A request and how far it is. The tokens it will get are known from the start."""

    request: Submit
    token_ids: list[int]
    submitted_s: float = field(default_factory=time.monotonic)
    num_done: int = 0

    @property
    def num_held(self) -> int:
        """Tokens it keeps in memory."""
        return len(self.token_ids) - 1 + self.num_done

    def finish_reason(self, newest: int) -> FinishReason | None:
        """Why it ends with this token, if it does; an end token is delivered, too."""
        stopping = self.request.stopping
        if newest == END and not stopping.ignore_eos:
            return "eos"
        if newest in stopping.stop_token_ids:
            return "stop_token"
        return "length" if self.num_done >= stopping.max_new_tokens else None


class BackwardsRunner(ModelRunner):
    """One step gives each running request its next token. The first in the dict are running."""

    def __init__(self, info: RunnerInfo, step_seconds: float) -> None:
        self._info = info
        self._step_seconds = step_seconds
        self._jobs: dict[str, Job] = {}
        self._woken = threading.Event()
        self._counts: Counter[str] = Counter()

    @property
    def info(self) -> RunnerInfo:
        """Constant."""
        return self._info

    def submit(self, request: Submit) -> None:
        """The worker has held it against `info` already; an error raised here refuses it."""
        prompt = request.prompt_token_ids
        self._jobs[request.request_id] = Job(request, [*reversed(prompt), END])
        self._counts.update(num_prompt_tokens=len(prompt), num_prefilled_tokens=len(prompt))

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """Its place is free at once. There is one sequence a request, so `index` can be 0 only."""
        if not index and self._jobs.pop(request_id, None):
            self._counts["num_cancelled"] += 1

    def poll(self, timeout: float) -> StepOutput:
        """One step, or a wait for something to do: `wake` ends it, also one that came before."""
        failures = [self._fail(job) for job in list(self._jobs.values()) if _overdue(job)]
        if not self._jobs:
            if not failures:
                self._woken.wait(timeout)
                self._woken.clear()
            return StepOutput(failures=failures)
        time.sleep(self._step_seconds)  # here an engine computes
        self._counts["num_steps"] += 1
        deltas = [self._advance(job) for job in self._running()]
        return StepOutput(deltas=deltas, failures=failures)

    def wake(self) -> None:
        """The only method besides `info` and `tokenize` that other threads call."""
        self._woken.set()

    def stats(self) -> RunnerStats:
        """Used, cached and free tokens are the whole cache, always."""
        running = self._running()
        used = sum(job.num_held for job in running)
        counts: dict[str, Any] = dict(self._counts)
        return RunnerStats(
            running=len(running),
            waiting=len(self._jobs) - len(running),
            used_tokens=used,
            free_tokens=self._info.limits.cache_tokens - used,
            **counts,
        )

    def close(self) -> None:
        """There is nothing to free."""

    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        """For a server without a tokenizer file. The end's text is the end where parsed."""
        del add_special  # no token begins a text
        pattern = f"({END_TEXT})" if parse_special else r"(?!)"
        return [
            [one for part in re.split(pattern, text) for one in _ids(part, parsed=parse_special)]
            for text in texts
        ]

    def _running(self) -> list[Job]:
        return list(islice(self._jobs.values(), self._info.limits.max_sequences))

    def _advance(self, job: Job) -> SequenceDelta:
        now_s = time.monotonic()
        prompt_length = len(job.token_ids) - 1
        first = job.num_done == 0
        token_id = job.token_ids[job.num_done % len(job.token_ids)]
        job.num_done += 1
        reason = job.finish_reason(token_id)
        self._counts["num_generated_tokens"] += 1
        if reason is not None:
            del self._jobs[job.request.request_id]
            self._counts["num_finished"] += 1
        timing = SequenceTiming(now_s - job.submitted_s, 0.0, prompt_length, 0) if first else None
        return SequenceDelta(
            job.request.request_id, 0, [token_id], finish_reason=reason, timing=timing
        )

    def _fail(self, job: Job) -> Failed:
        del self._jobs[job.request.request_id]
        self._counts["num_failed"] += 1
        error = DeadlineExceededError("the request's deadline passed")
        return Failed(request_id=job.request.request_id, error=ErrorInfo.of(error))


def _overdue(job: Job) -> bool:
    return job.request.deadline is not None and job.request.deadline < time.time()


def _ids(part: str, *, parsed: bool) -> list[int]:
    return [END] if parsed and part == END_TEXT else list(part.encode())


def describe_runner(spec: RunnerSpec) -> RunnerInfo:
    """What the server must know. Limits are those asked for, or ours where none are."""
    asked = spec.engine
    max_total_tokens = asked.max_total_tokens or 1024
    max_sequences = asked.max_batch_size or 16
    if asked.max_batch_total_tokens:
        fitting = max(1, asked.max_batch_total_tokens // max_total_tokens)
        max_sequences = min(max_sequences, fitting)
    return RunnerInfo(
        model=ModelInfo(
            model_id=spec.model.model_id, backend="backwards", backend_version="1", device="cpu"
        ),
        limits=Limits(
            max_total_tokens=max_total_tokens,
            max_input_tokens=asked.max_input_tokens or max_total_tokens - 1,
            max_batch_tokens=asked.max_batch_prefill_tokens or max_total_tokens,
            max_sequences=max_sequences,
            max_waiting_requests=asked.max_concurrent_requests,
            cache_tokens=max_sequences * max_total_tokens,
        ),
        capabilities=Capabilities(stopping=("stop_token_ids", "ignore_eos")),
        vocabulary=Vocabulary(
            tokens=[*(bytes([value]) for value in range(END)), END_TEXT.encode()],
            special_token_ids=(END,),
            eos_token_ids=(END,),
        ),
        tokenizer=RemoteTokenizer(),
        chat_templates={"default": CHAT_TEMPLATE},
    )


@dataclass(frozen=True, kw_only=True)
class BackwardsSettings:
    """Mounted on the command line as `--backwards.*`."""

    step_seconds: float = setting(0.0, "How long a step takes.")


class BackwardsBackend(Backend):
    """Serves the models called "backwards:…"."""

    name = "backwards"
    summary = "Says it backwards. An example of an engine of one's own."
    settings = BackwardsSettings

    def probe(self) -> Available:
        """It needs nothing."""
        return Available(devices=(Device(name="cpu"),), version="1")

    def supports(self, model: ModelSource) -> Support:
        """Judged by the name alone."""
        if model.model_id.startswith("backwards:"):
            return Native()
        return Unsupported(reason="it serves only models called backwards:…")

    def select_files(self, model: ModelSource) -> tuple[str, ...]:
        """There is nothing to download."""
        del model
        return ()

    def create_runner(self, spec: RunnerSpec, progress: ProgressSink) -> ModelRunner:
        """Called in the worker, which may take its time."""
        if spec.model.path is not None:
            raise ModelError(f"{spec.model.path}: nothing is loaded from files")
        settings: BackwardsSettings = self.parse_settings(spec.settings)
        progress("load", 1.0)
        return BackwardsRunner(describe_runner(spec), settings.step_seconds)


@hookimpl
def backplane_register_backends(register: RegisterBackend) -> None:
    """Called once, at discovery."""
    register(BackwardsBackend)
