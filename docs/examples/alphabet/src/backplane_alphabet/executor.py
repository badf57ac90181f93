"""The engine: which letter comes next. It computes and samples; it schedules nothing."""

import math
import time
from itertools import accumulate

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
from backplane_core.sampling import SamplingParams, uniform

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
        logits = self._logits(scheduled.token_ids[-1])
        wanted = dict(logits)
        if sequence.num_output_tokens < sequence.stopping.min_new_tokens:
            del wanted[END]
        position = len(sequence.token_ids)  # the new token's, counted from the prompt's start
        number = uniform(sequence.seed, position)
        token_id = draw(wanted, sequence.sampling, number)
        num_top = sequence.request.top_logprobs
        if num_top is None:
            return SampledTokens([token_id])
        logprobs = log_softmax(logits)  # the model's own, whatever the request wanted
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


def draw(logits: dict[int, float], sampling: SamplingParams, number: float) -> int:
    """The token that `number`, from 0 to 1, draws. Honours just what the runner declares."""
    logits = {key: logit + sampling.logit_bias.get(key, 0.0) for key, logit in logits.items()}
    best = sorted(logits, key=lambda token_id: (-logits[token_id], token_id))
    if sampling.greedy:
        return best[0]
    kept = sorted(best[: sampling.top_k or len(best)])
    highest = logits[best[0]]
    weights = [math.exp((logits[token_id] - highest) / sampling.temperature) for token_id in kept]
    threshold = number * math.fsum(weights)
    for token_id, so_far in zip(kept, accumulate(weights), strict=True):
        if so_far > threshold:
            return token_id
    return kept[-1]  # rounding can leave the last sum at the threshold


def log_softmax(logits: dict[int, float]) -> dict[int, float]:
    """Natural logarithms of the probabilities."""
    highest = max(logits.values())
    total = highest + math.log(math.fsum(math.exp(logit - highest) for logit in logits.values()))
    return {token_id: logit - total for token_id, logit in logits.items()}
