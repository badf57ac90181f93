"""The executor over one llama.cpp context: a step is one `llama_decode` of all sequences.

Keys and values live in one unified pool of cells; sequences that share a prefix share its cells.
"""

import time
from collections.abc import Container
from typing import TypeGuard

import numpy as np
from backplane_core.batching.executor import (
    Executor,
    ExecutorTraits,
    MemoryLayout,
    SampledTokens,
    ScheduledBatch,
    ScheduledSequence,
    StepResult,
)
from backplane_core.errors import GenerationError, OutOfMemoryError

from backplane_llamacpp.adapters import AdapterShelf
from backplane_llamacpp.native import log
from backplane_llamacpp.native.context import NativeContext, TokenBatch
from backplane_llamacpp.sampler import Result
from backplane_llamacpp.step_sampler import StepSampler

_DECODED, _NO_CELLS, _ALLOCATION_FAILED = 0, 1, -2


class LlamaCppExecutor(Executor):
    """Computes and samples on a context it owns."""

    def __init__(
        self,
        context: NativeContext,
        *,
        traits: ExecutorTraits,
        sampler: StepSampler,
        adapters: AdapterShelf,
    ) -> None:
        if traits.layout is not MemoryLayout.CELLS:
            raise ValueError(f"a llama.cpp context has cells, not {traits.layout.value}")
        self._context = context
        self._traits = traits
        self._batch = TokenBatch(traits.max_batch_tokens)
        self._ascending = np.arange(traits.max_batch_tokens, dtype=np.int32)
        self._sampler = sampler
        self._adapters = adapters
        self._adapter: str | None = None

    @property
    def traits(self) -> ExecutorTraits:
        """Constant."""
        return self._traits

    def execute(self, batch: ScheduledBatch) -> StepResult:
        """Decode all sequences' tokens at once, then score and sample where asked."""
        if not batch.sequences:
            return StepResult([])
        self._select_adapter(next(iter(batch.adapters), None))
        num_tokens, num_rows = self._fill(batch)
        self._decode(batch, num_tokens)
        if not num_rows:
            self._context.synchronize()  # or the step seems short, and the next chunk grows
            return StepResult([None] * len(batch.sequences))
        logits = self._context.logits(num_rows)
        started_s = time.perf_counter()
        results, scores = self._sampler.sample(batch.sequences, logits)
        sampling_s = time.perf_counter() - started_s
        if batch.num_steps > 1:
            return self._go_on(batch, results, sampling_s)
        return StepResult(results, sampling_s, scores)

    def _go_on(self, batch: ScheduledBatch, results: list[Result], sampling_s: float) -> StepResult:
        """Take further steps, each with what the one before sampled."""
        native, sequences = self._batch, batch.sequences
        num_rows, num_steps = len(sequences), 1
        while num_steps < batch.num_steps and _all_go_on(results, sequences):
            so_far = [result.token_ids for result in results]
            native.tokens[:num_rows] = [token_ids[-1] for token_ids in so_far]
            native.positions[:num_rows] += 1
            try:
                self._decode(batch, num_rows, num_steps)
            except OutOfMemoryError:
                break  # what there is goes out; the next step meets it again
            logits = self._context.logits(num_rows)
            started_s = time.perf_counter()
            gained = self._sampler.go_on(sequences, logits, so_far)
            results = list(map(_together, results, gained))
            sampling_s += time.perf_counter() - started_s
            num_steps += 1
        return StepResult([*results], sampling_s, num_steps=num_steps)

    def _select_adapter(self, key: str | None) -> None:
        """Switch where the last batch had another: llama.cpp then plans its graph anew."""
        if key != self._adapter:
            self._context.select_adapter(None if key is None else self._adapters[key])
            self._adapter = key

    def free_unused_adapters(self, used_keys: Container[str | None]) -> None:
        """Free adapters that are unloaded and whose keys are not among those in use."""
        for key in self._adapters.unused(used_keys):
            if key == self._adapter:
                self._select_adapter(None)
            self._adapters.free(key)

    def _fill(self, batch: ScheduledBatch) -> tuple[int, int]:
        """Write the native batch, a stretch per sequence, in the order of the scheduler's.

        Returns:
            How many tokens it has, and for how many of these there will be logits.
        """
        native, sequences = self._batch, batch.sequences
        end = num_rows = batch.num_decodes
        if end:
            # One token each: lists of them go in at once, half a microsecond per sequence.
            decodes = sequences[:end]
            native.tokens[:end] = [scheduled.token_ids[0] for scheduled in decodes]
            native.positions[:end] = [scheduled.start for scheduled in decodes]
            native.seq_ids[:end] = [scheduled.seq_id for scheduled in decodes]
            native.wants_logits[:end] = 1
        for scheduled in sequences[end:]:
            begin, end = end, end + len(scheduled.token_ids)
            start = scheduled.start
            native.tokens[begin:end] = scheduled.token_ids
            native.positions[begin:end] = self._ascending[: end - begin] + start
            native.seq_ids[begin:end] = scheduled.seq_id
            wants = native.wants_logits[begin:end]
            wants[:] = 0
            scored = scheduled.scored_positions
            wants[scored.start - start : scored.stop - start] = bool(scored)
            wants[-1] |= scheduled.sample
            num_rows += int(np.count_nonzero(wants))
        return end, num_rows

    def _decode(self, batch: ScheduledBatch, num_tokens: int, num_before: int = 0) -> None:
        """Compute the native batch; `num_before` steps of the scheduled one are done."""
        log.forget_complaints()
        code = self._context.decode(self._batch, num_tokens)
        if code == _DECODED:
            return
        if code == _NO_CELLS:
            raise OutOfMemoryError(
                f"the key-value cache has no {num_tokens} free cells of {self._context.n_ctx}",
                remedy="a larger --max-batch-total-tokens holds more",
            )
        reason = log.cause()
        if code == _ALLOCATION_FAILED and self._undo(batch, num_before):
            raise OutOfMemoryError(f"llama.cpp found no memory for {num_tokens} tokens: {reason}")
        raise GenerationError(f"llama_decode failed with code {code}: {reason}")

    def _undo(self, batch: ScheduledBatch, num_before: int) -> bool:
        """Drop what a half-done decode wrote; False where the memory cannot."""
        return all(
            self._context.remove(scheduled.seq_id, scheduled.start + num_before)
            for scheduled in batch.sequences
        )

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Give `target` the cells of `source`'s first tokens; no key or value is copied."""
        self._context.copy_sequence(source, target, num_tokens)

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Free the cells of positions `num_tokens` and up that nobody else shares."""
        if not self._context.remove(seq_id, num_tokens):
            raise GenerationError(f"this model's memory cannot drop a sequence's tail ({seq_id})")

    def release(self, seq_id: int) -> None:
        """Free a sequence's cells, at once, and what its sampling keeps."""
        self._context.remove(seq_id, 0)
        self._sampler.forget(seq_id)

    def close(self) -> None:
        """Free the context and the adapters."""
        self._context.close()
        self._adapters.close()


def _all_go_on(
    results: list[Result], sequences: list[ScheduledSequence]
) -> TypeGuard[list[SampledTokens]]:
    """Whether all have a token that ends nothing."""
    return all(
        isinstance(result, SampledTokens)
        and result.token_ids[-1] not in scheduled.sequence.end_token_ids
        for scheduled, result in zip(sequences, results, strict=True)
    )


def _together(before: SampledTokens, gained: Result) -> Result:
    """What came of steps in a row: an error takes the place of all."""
    if not isinstance(gained, SampledTokens):
        return gained
    before.token_ids.extend(gained.token_ids)
    if before.logprobs is not None and gained.logprobs is not None:
        before.logprobs.extend(gained.logprobs)
    if before.top_logprobs is not None and gained.top_logprobs is not None:
        before.top_logprobs.extend(gained.top_logprobs)
    return before
