"""The engine: which letter comes next. It computes and samples; it schedules nothing."""

import time

from backplane_core.batching.executor import (
    Executor,
    ExecutorTraits,
    MemoryLayout,
    SampledTokens,
    ScheduledBatch,
    ScheduledSequence,
    StepResult,
)
from backplane_core.capabilities import Limits
from backplane_core.testing.sampling_reference import log_softmax, sample

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
END = 256  # the token ids are bytes, and one more for the end


class AlphabetExecutor(Executor):
    """Each sequence has a slot, and the newest token is all that its slot needs to remember."""

    def __init__(self, limits: Limits, stride: int, step_seconds: float) -> None:
        self._stride = stride
        self._step_seconds = step_seconds
        self._traits = ExecutorTraits(
            layout=MemoryLayout.SLOTS,
            max_sequences=limits.max_sequences,
            cache_tokens=limits.cache_tokens,
            slot_tokens=limits.max_total_tokens,
            max_batch_tokens=limits.max_batch_tokens,
            shareable=False,
        )

    @property
    def traits(self) -> ExecutorTraits:
        """What the scheduler must respect."""
        return self._traits

    def execute(self, batch: ScheduledBatch) -> StepResult:
        """One step of every sequence; a real engine computes them together."""
        time.sleep(self._step_seconds)
        return StepResult(
            [self._step(scheduled) if scheduled.sample else None for scheduled in batch.sequences]
        )

    def _step(self, scheduled: ScheduledSequence) -> SampledTokens:
        sequence = scheduled.sequence
        may_end = sequence.num_output_tokens >= sequence.stopping.min_new_tokens
        logits = self._logits(scheduled.token_ids[-1])
        token_id = sample(
            logits,
            sequence.sampling,
            sequence.token_ids,
            seed=sequence.seed,
            masked=() if may_end else (END,),
        )
        num_top = sequence.request.top_logprobs
        if num_top is None:
            return SampledTokens([token_id])
        logprobs = log_softmax(logits)
        best = sorted(logprobs.items(), key=lambda pair: (-pair[1], pair[0]))[:num_top]
        return SampledTokens([token_id], [logprobs[token_id]], [best] if best else None)

    def _logits(self, newest: int) -> dict[int, float]:
        """The letter that follows is the likeliest, the two after it are slips of the tongue."""
        logits = dict.fromkeys(range(END + 1), -20.0)
        place = LETTERS.find(newest) if newest < END else -1
        following = place + self._stride if place >= 0 else 0
        for place, logit in enumerate((4.0, 1.0, 0.0), start=following):
            if place < len(LETTERS):
                logits[LETTERS[place]] = logit
            else:
                logits[END] = max(logit, logits[END])
        return logits

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Never called: the traits say that slots share nothing."""
        raise NotImplementedError(f"slot {source} shares no {num_tokens} tokens with {target}")

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """A slot remembers nothing that could be cut."""

    def release(self, seq_id: int) -> None:
        """Nor anything that could be freed."""
