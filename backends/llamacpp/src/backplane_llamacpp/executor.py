"""The executor over one llama.cpp context: each step is one `llama_decode` of all sequences.

Keys and values live in one unified pool of cells; sequences that share a prefix share its cells.
"""

import logging

import numpy as np
import numpy.typing as npt
from backplane_core.batching.executor import (
    Executor,
    ExecutorTraits,
    MemoryLayout,
    SampledTokens,
    ScheduledBatch,
    ScheduledSequence,
    StepResult,
)
from backplane_core.errors import BackplaneError, GenerationError, OutOfMemoryError

from backplane_llamacpp.logits_processors import needs_only_argmax
from backplane_llamacpp.native import log
from backplane_llamacpp.native.context import NativeContext, TokenBatch
from backplane_llamacpp.sampler import Sampler

_log = logging.getLogger(__name__)

_DECODED, _NO_CELLS, _ALLOCATION_FAILED = 0, 1, -2


class LlamaCppExecutor(Executor):
    """Computes and samples on a context it owns."""

    def __init__(
        self,
        context: NativeContext,
        *,
        n_vocab: int,
        traits: ExecutorTraits,
        suppressed_token_ids: list[int],
    ) -> None:
        if traits.layout is not MemoryLayout.CELLS:
            raise ValueError(f"a llama.cpp context has cells, not {traits.layout.value}")
        self._context = context
        self._traits = traits
        self._batch = TokenBatch(traits.max_batch_tokens)
        self._sampler = Sampler(n_vocab)
        self._suppressed = suppressed_token_ids

    @property
    def traits(self) -> ExecutorTraits:
        """Constant."""
        return self._traits

    def execute(self, batch: ScheduledBatch) -> StepResult:
        """Decode all sequences' tokens at once, then sample where asked."""
        if not batch.sequences:
            return StepResult([])
        num_tokens = self._fill(batch)
        self._decode(batch, num_tokens)
        sampled = [scheduled for scheduled in batch.sequences if scheduled.sample]
        if not sampled:
            return StepResult([None] * len(batch.sequences))
        tokens = iter(self._sample(sampled, self._context.logits(len(sampled))))
        return StepResult(
            [next(tokens) if scheduled.sample else None for scheduled in batch.sequences]
        )

    def _fill(self, batch: ScheduledBatch) -> int:
        """Write the native batch, a stretch per sequence, in the order of the scheduler's."""
        native, end = self._batch, 0
        native.wants_logits[:] = 0
        for scheduled in batch.sequences:
            begin, end = end, end + len(scheduled.token_ids)
            native.tokens[begin:end] = scheduled.token_ids
            native.positions[begin:end] = range(
                scheduled.start, scheduled.start + len(scheduled.token_ids)
            )
            native.seq_ids[begin:end] = scheduled.seq_id
            native.wants_logits[end - 1] = scheduled.sample
        return end

    def _decode(self, batch: ScheduledBatch, num_tokens: int) -> None:
        log.forget_complaints()
        code = self._context.decode(self._batch, num_tokens)
        if code == _DECODED:
            return
        if code == _NO_CELLS:
            raise OutOfMemoryError(
                f"the key-value cache has no {num_tokens} free cells of {self._context.n_ctx}",
                remedy="a larger --ctx-size holds more",
            )
        reason = log.cause()
        if code == _ALLOCATION_FAILED and self._undo(batch):
            raise OutOfMemoryError(f"llama.cpp found no memory for {num_tokens} tokens: {reason}")
        raise GenerationError(f"llama_decode failed with code {code}: {reason}")

    def _undo(self, batch: ScheduledBatch) -> bool:
        """Drop what a half-done decode wrote; False where the memory cannot."""
        return all(
            self._context.remove(scheduled.seq_id, scheduled.start) for scheduled in batch.sequences
        )

    def _sample(
        self, sampled: list[ScheduledSequence], logits: npt.NDArray[np.float32]
    ) -> list[SampledTokens | BackplaneError]:
        if self._suppressed:
            logits[:, self._suppressed] = -np.inf
        if needs_only_argmax([scheduled.sequence for scheduled in sampled]):
            token_ids = logits.argmax(axis=1)
            peaks = logits[np.arange(len(sampled)), token_ids]
            if np.isfinite(peaks).all():
                return [SampledTokens([token_id]) for token_id in token_ids.tolist()]
        return [
            self._sample_one(scheduled, row) for scheduled, row in zip(sampled, logits, strict=True)
        ]

    def _sample_one(
        self, scheduled: ScheduledSequence, logits: npt.NDArray[np.float32]
    ) -> SampledTokens | BackplaneError:
        try:
            token_id = self._sampler.sample(scheduled.seq_id, scheduled.sequence, logits)
        except GenerationError as error:
            return error
        except (ArithmeticError, LookupError, ValueError) as error:
            # One request's numbers must not take everybody's engine down.
            _log.exception("sampling failed for %s", scheduled.sequence.request.request_id)
            return GenerationError(f"the token could not be sampled: {type(error).__name__}")
        num_top = scheduled.sequence.request.top_logprobs
        if num_top is None:
            return SampledTokens([token_id])
        logprob, top = self._sampler.logprobs(logits, token_id, num_top)
        return SampledTokens([token_id], [logprob], [top] if num_top else None)

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Give `target` the cells of `source`'s first tokens; no key or value is copied."""
        self._context.copy_sequence(source, target, num_tokens)

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Free the cells of positions `num_tokens` and up that nobody else shares."""
        if not self._context.remove(seq_id, num_tokens):
            raise GenerationError(f"this model's memory cannot drop a sequence's tail ({seq_id})")

    def release(self, seq_id: int) -> None:
        """Free a sequence's cells, at once, and its penalty counts."""
        self._context.remove(seq_id, 0)
        self._sampler.forget(seq_id)

    def close(self) -> None:
        """Free the context and the native samplers."""
        self._sampler.close()
        self._context.close()
