"""`python -m backplane_core.engine_benchmark`: a runner's own speed, by the size of the batch.

It runs in the backend's own interpreter, as an errand: no worker, no sockets, no text.
"""

import gc
import itertools
import sys
from array import array
from collections.abc import Mapping
from random import Random
from time import perf_counter
from typing import Final

import msgspec

from backplane_core import errand
from backplane_core.backend import ProgressSink, RunnerSpec
from backplane_core.errors import GenerationError, SetupError
from backplane_core.messages import StepOutput, Submit, TokenSegment
from backplane_core.registry import discover
from backplane_core.runner import ModelRunner
from backplane_core.sampling import SamplingParams, StoppingParams

_POLL_S: Final = 1.0
# A runner that gives nothing for so long gives nothing any more.
_STALL_S: Final = 300.0


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to measure: `runs` times each size, after `warmups` that do not count."""

    backend: str
    spec: RunnerSpec
    batch_sizes: tuple[int, ...]
    sequence_length: int
    decode_length: int
    runs: int
    warmups: int
    sampling: SamplingParams
    top_logprobs: int | None = None
    seed: int = 0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One batch, from submission to its last token. Times in seconds.

    Attributes:
        prefill_s: until every sequence had its first token.
        decode_s: from then on to the end.
        steps_s: the time of each step of that, as it came out of `poll`.
        num_decoded: tokens made in that time; those that came earlier, while other prompts were
            still being read, count with the prefill.
    """

    prefill_s: float
    decode_s: float
    steps_s: list[float]
    num_decoded: int


class BatchRuns(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of one batch size."""

    batch_size: int
    runs: list[Run]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, and on what."""

    model_id: str
    backend: str
    backend_version: str
    device: str
    batches: list[BatchRuns]


def run(
    python: str, order: Order, progress: ProgressSink, environ: Mapping[str, str] | None = None
) -> Outcome:
    """Have the interpreter `python` measure; blocks until it is done.

    Raises:
        BackplaneError: the model cannot be loaded, or a request failed.
        BackendError: the interpreter cannot be started, or it crashed.
    """
    result = errand.send(
        python,
        "backplane_core.engine_benchmark",
        order,
        progress,
        doing=f"backend {order.backend} stopped while it was measured",
        environ=environ,
    )
    return msgspec.convert(result, Outcome)


def measure(order: Order, progress: ProgressSink) -> Outcome:
    """Load the model in this interpreter, as a worker would, and measure it.

    Raises:
        BackplaneError: the model cannot be loaded, it has no room for such a batch, or a request
            failed.
    """
    runner = discover().create(order.backend).create_runner(order.spec, progress)
    try:
        _check(order, runner)
        gc.collect()
        gc.freeze()
        prompts = _Prompts(runner, order)
        numbers = itertools.count()
        batches: list[BatchRuns] = []
        total = len(order.batch_sizes) * (order.warmups + order.runs)
        for size in order.batch_sizes:
            runs: list[Run] = []
            for attempt in range(order.warmups + order.runs):
                done = len(batches) * (order.warmups + order.runs) + attempt
                progress("measure", done / total, f"batch of {size}")
                measured = _run_batch(runner, order, prompts, next(numbers), size)
                if attempt >= order.warmups:
                    runs.append(measured)
            batches.append(BatchRuns(batch_size=size, runs=runs))
        progress("measure", 1.0)
        model = runner.info.model
        return Outcome(
            model_id=model.model_id,
            backend=model.backend,
            backend_version=model.backend_version,
            device=model.device,
            batches=batches,
        )
    finally:
        runner.close()


def _check(order: Order, runner: ModelRunner) -> None:
    limits = runner.info.limits
    longest = order.sequence_length + order.decode_length
    if order.sequence_length > limits.max_input_tokens or longest > limits.max_total_tokens:
        raise SetupError(
            f"prompts of {order.sequence_length} and {order.decode_length} new tokens are more "
            f"than the model's {limits.max_input_tokens} and {limits.max_total_tokens} in all",
            remedy="give less, or raise --max-input-tokens and --max-total-tokens",
        )
    size = max(order.batch_sizes)
    if size > limits.max_sequences:
        raise SetupError(
            f"a batch of {size} is more than the {limits.max_sequences} sequences that run at a "
            "time",
            remedy="give smaller ones, or raise --max-batch-size",
        )
    if size * longest > limits.cache_tokens:
        raise SetupError(
            f"a batch of {size} needs {size * longest} tokens of cache, and there are "
            f"{limits.cache_tokens}",
            remedy="give smaller ones, or raise --max-batch-total-tokens",
        )


class _Prompts:
    """Random ordinary tokens: no two prompts alike, so none is found in a cache."""

    def __init__(self, runner: ModelRunner, order: Order) -> None:
        vocabulary = runner.info.vocabulary
        special = {*vocabulary.special_token_ids, *vocabulary.eos_token_ids}
        self._ids = array(
            "q",
            (
                token_id
                for token_id, text in enumerate(vocabulary.tokens)
                if text and token_id not in special
            ),
        )
        self._length = order.sequence_length
        self._random = Random(order.seed)  # noqa: S311 - no secret

    def next(self) -> list[int]:
        return self._random.choices(self._ids, k=self._length)


def _run_batch(runner: ModelRunner, order: Order, prompts: _Prompts, number: int, size: int) -> Run:
    requests = [
        Submit(
            request_id=f"benchmark-{number}-{index}",
            prompt=[TokenSegment(token_ids=prompts.next())],
            stopping=StoppingParams(max_new_tokens=order.decode_length, ignore_eos=True),
            sampling=order.sampling,
            top_logprobs=order.top_logprobs,
        )
        for index in range(size)
    ]
    began = perf_counter()
    for request in requests:
        runner.submit(request)
    begun: set[str] = set()
    num_running, num_tokens, num_early = size, 0, 0
    prefilled = last = began
    steps_s: list[float] = []
    while num_running:
        output = runner.poll(_POLL_S)
        now = perf_counter()
        if output.failures:
            raise output.failures[0].error.restore()
        if not output.deltas:
            if now - last > _STALL_S:
                raise GenerationError(f"the engine gave nothing for {_STALL_S:g} s")
            continue
        is_decoding = len(begun) == size
        num_tokens += _num_tokens(output)
        num_running -= sum(delta.finish_reason is not None for delta in output.deltas)
        if is_decoding:
            steps_s.append(now - last)
        else:
            begun.update(delta.request_id for delta in output.deltas if delta.token_ids)
            prefilled, num_early = now, num_tokens
        last = now
    return Run(
        prefill_s=prefilled - began,
        decode_s=last - prefilled,
        steps_s=steps_s,
        num_decoded=num_tokens - num_early,
    )


def _num_tokens(output: StepOutput) -> int:
    return sum(len(delta.token_ids) for delta in output.deltas)


if __name__ == "__main__":
    errand.carry_out_here(Order, measure, sys.stdin, sys.stdout)
