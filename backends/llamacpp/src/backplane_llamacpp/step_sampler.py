"""A step's rows of logits turned into tokens and logprobs.

Knows nothing of contexts; the sampling itself is a `Sampler`'s.
"""

import logging
from collections.abc import Sequence as Items
from typing import Final

from backplane_core.batching.executor import PromptScores, ScheduledSequence
from backplane_core.batching.logit_rows import assign_logit_rows

from backplane_llamacpp.compiled_sampler import CompiledSampler
from backplane_llamacpp.native import rows as native_rows
from backplane_llamacpp.numpy_sampler import NumpySampler
from backplane_llamacpp.sampler import Logits, Result, Sampler

_log = logging.getLogger(__name__)

# More would come to a reader in lumps.
_MAX_STEPS: Final = 8


def create_sampler(n_vocab: int, suppressed_token_ids: list[int], num_threads: int) -> Sampler:
    """The compiled sampler, where there is one."""
    if (library := native_rows.load()) is not None:
        return CompiledSampler(library, n_vocab, suppressed_token_ids, num_threads)
    _log.info(
        "sample.c is not compiled: sampling does with numpy, which takes several times as long"
    )
    return NumpySampler(n_vocab, suppressed_token_ids)


class StepSampler:
    """For one executor. `suppressed_token_ids` never come, whatever a request asks.

    Attributes:
        max_steps: how many steps in a row it samples, the sequences not knowing of what came.
    """

    def __init__(self, n_vocab: int, suppressed_token_ids: list[int], num_threads: int) -> None:
        """`num_threads` are those that compute the model, which sample side by side."""
        self._sampler = create_sampler(n_vocab, suppressed_token_ids, num_threads)
        self.max_steps = _MAX_STEPS if isinstance(self._sampler, CompiledSampler) else 1

    def forget(self, seq_id: int) -> None:
        """Drop what is kept of a sequence."""
        self._sampler.forget(seq_id)

    def sample(
        self, sequences: Items[ScheduledSequence], logits: Logits
    ) -> tuple[list[Result], dict[int, PromptScores]]:
        """Results in the order of `sequences`, and prompt scores by sequence id.

        Args:
            sequences: of one step.
            logits: a row per position that was to be scored or sampled, in the same order. May be
                written to.
        """
        rows = assign_logit_rows(sequences)
        scores = {
            scheduled.seq_id: self._score(scheduled, logits[begin:])
            for scheduled, begin in rows.scored
        }
        if len(rows.sampled) == len(sequences):
            return self._sampler.tokens(list(sequences), logits, rows.sampled), scores
        wanted = [scheduled for scheduled in sequences if scheduled.sample]
        sampled = iter(self._sampler.tokens(wanted, logits, rows.sampled) if wanted else ())
        return [next(sampled) if one.sample else None for one in sequences], scores

    def go_on(
        self, sequences: list[ScheduledSequence], logits: Logits, ahead: list[list[int]]
    ) -> list[Result]:
        """Results of one more step, a row each, after tokens that they do not know of yet."""
        if not isinstance(self._sampler, CompiledSampler):
            raise TypeError("numpy samples one step at a time")
        return self._sampler.tokens(sequences, logits, range(len(sequences)), ahead)

    def _score(self, scheduled: ScheduledSequence, logits: Logits) -> PromptScores:
        num_top = scheduled.sequence.request.prompt_logprobs or 0
        token_ids = scheduled.scored_token_ids
        scored = self._sampler.scores(logits[: len(token_ids)], token_ids, num_top)
        logprobs = [logprob for logprob, _ in scored]
        return PromptScores(logprobs, [top for _, top in scored] if num_top else None)
