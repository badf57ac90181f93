"""A step's rows of logits turned into tokens and logprobs: who gets which row, and who fails alone.

Knows nothing of contexts; the sampling itself is `sampler`'s.
"""

import logging
from collections.abc import Sequence as Items

import numpy as np
from backplane_core.batching.executor import PromptScores, SampledTokens, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import BackplaneError, GenerationError

from backplane_llamacpp.logits_processors import Allowed, Logits, needs_only_argmax
from backplane_llamacpp.sampler import Sampler

_log = logging.getLogger(__name__)

Result = SampledTokens | BackplaneError | None


class StepSampler:
    """For one executor. `suppressed_token_ids` never come, whatever a request asks."""

    def __init__(self, n_vocab: int, suppressed_token_ids: list[int]) -> None:
        self._n_vocab = n_vocab
        self._suppressed = suppressed_token_ids
        self._sampler = Sampler(n_vocab, suppressed_token_ids)

    def forget(self, seq_id: int) -> None:
        """Drop a sequence's penalty counts."""
        self._sampler.forget(seq_id)

    def close(self) -> None:
        """Free native samplers."""
        self._sampler.close()

    def sample(
        self, sequences: Items[ScheduledSequence], logits: Logits
    ) -> tuple[list[Result], dict[int, PromptScores]]:
        """Results in the order of `sequences`, and prompt scores by sequence id.

        Args:
            sequences: of one step.
            logits: a row per position that was to be scored or sampled, in the same order. May be
                written to.
        """
        scores: dict[int, PromptScores] = {}
        rows: list[int] = []  # of those to be sampled
        end = 0
        for scheduled in sequences:
            begin, end = end, end + _num_rows(scheduled)
            if scheduled.scored_positions:
                scores[scheduled.seq_id] = self._score(scheduled, logits[begin:end])
            if scheduled.sample:
                rows.append(end - 1)
        wanted = [scheduled for scheduled in sequences if scheduled.sample]
        sampled = iter(self._tokens(wanted, logits if len(rows) == len(logits) else logits[rows]))
        return [next(sampled) if one.sample else None for one in sequences], scores

    def _score(self, scheduled: ScheduledSequence, logits: Logits) -> PromptScores:
        num_top = scheduled.sequence.request.prompt_logprobs or 0
        scored = [
            self._sampler.logprobs(row, token_id, num_top)
            for row, token_id in zip(logits, scheduled.scored_token_ids, strict=False)
        ]
        logprobs = [logprob for logprob, _ in scored]
        return PromptScores(logprobs, [top for _, top in scored] if num_top else None)

    def _tokens(self, wanted: list[ScheduledSequence], logits: Logits) -> list[Result]:
        if not wanted:
            return []
        if needs_only_argmax([scheduled.sequence for scheduled in wanted]):
            if self._suppressed:
                logits[:, self._suppressed] = -np.inf
            token_ids = logits.argmax(axis=1)
            peaks = logits[np.arange(len(wanted)), token_ids]
            if np.isfinite(peaks).all():
                return [SampledTokens([token_id]) for token_id in token_ids.tolist()]
        results: list[Result] = [None] * len(wanted)
        # Guided ones last: until their turn comes, their masks are being made.
        order = sorted(range(len(wanted)), key=lambda one: wanted[one].sequence.guide is not None)
        for place in order:
            results[place] = self._token(wanted[place], logits[place])
        return results

    def _token(
        self, scheduled: ScheduledSequence, logits: Logits
    ) -> SampledTokens | BackplaneError:
        sequence = scheduled.sequence
        try:
            allowed = self._allowed(sequence)
            token_id = self._sampler.sample(scheduled.seq_id, sequence, logits, allowed)
        except BackplaneError as error:
            return error
        except (ArithmeticError, LookupError, ValueError) as error:
            # One request's numbers must not take everybody's engine down.
            _log.exception("sampling failed for %s", sequence.request.request_id)
            return GenerationError(f"the token could not be sampled: {type(error).__name__}")
        num_top = sequence.request.top_logprobs
        if num_top is None:
            return SampledTokens([token_id])
        logprob, top = self._sampler.logprobs(logits, token_id, num_top)
        return SampledTokens([token_id], [logprob], [top] if num_top else None)

    def _allowed(self, sequence: Sequence) -> Allowed | None:
        """What the sequence's grammar lets come, a truth value per token; None without one."""
        if sequence.guide is None:
            return None
        bits = np.frombuffer(sequence.guide.allowed(), np.uint8)
        return np.unpackbits(bits, count=self._n_vocab, bitorder="little").view(np.bool_)


def _num_rows(scheduled: ScheduledSequence) -> int:
    """Scored and sampled positions; the last of the chunk may be both."""
    last = scheduled.start + len(scheduled.token_ids) - 1
    return len(scheduled.scored_positions) + (
        scheduled.sample and last not in scheduled.scored_positions
    )
