"""What changes a row of logits before the draw: watermark, bias, penalties, masks, in this order.

The semantics are `docs/sampling.md`'s. Knows nothing of temperatures and cuts.
"""

import collections
from collections.abc import Sequence as Items

import numpy as np
import numpy.typing as npt
from backplane_core import watermark
from backplane_core.batching.sequence import Sequence
from backplane_core.sampling import SamplingParams, Watermark

Logits = npt.NDArray[np.float32]
Allowed = npt.NDArray[np.bool_]


class TokenCounts:
    """Which tokens stand in a sequence, and how often in its output, kept up step by step."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self._num_seen = sequence.num_prompt_tokens
        prompt = sequence.token_ids[: sequence.num_prompt_tokens]
        # A token of the prompt alone is there, no times: the repetition penalty looks at it.
        self._counts = collections.Counter(dict.fromkeys(prompt, 0))

    def update(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Count what is new; all distinct ids of the sequence, and their counts in the output."""
        token_ids = self.sequence.token_ids
        self._counts.update(token_ids[self._num_seen :])
        self._num_seen = len(token_ids)
        size = len(self._counts)
        ids = np.fromiter(self._counts.keys(), np.int64, size)
        return ids, np.fromiter(self._counts.values(), np.float64, size)


class GreenList:
    """Which tokens of a vocabulary a watermark prefers: `backplane_core.watermark` for all."""

    def __init__(self, n_vocab: int) -> None:
        self._mixed = _mix32(np.arange(n_vocab, dtype=np.uint32))

    def after(self, previous: int, gamma: float) -> Allowed:
        """Whether each token is green after `previous`."""
        key = np.uint32(watermark.key_of(previous))
        return _mix32(self._mixed ^ key) < np.uint32(watermark.threshold(gamma))


def _mix32(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """`watermark.mix32` of each; products wrap at 32 bits by themselves. Overwrites `values`."""
    first, second, third = (np.uint32(shift) for shift in watermark.SHIFTS)
    values ^= values >> first
    values *= np.uint32(watermark.MULTIPLIERS[0])
    values ^= values >> second
    values *= np.uint32(watermark.MULTIPLIERS[1])
    values ^= values >> third
    return values


class LogitsProcessors:
    """For many sequences; keeps penalty counts per `seq_id` until `forget`.

    `suppressed_token_ids` never come: the model file says so.
    """

    def __init__(self, n_vocab: int, suppressed_token_ids: list[int]) -> None:
        self._n_vocab = n_vocab
        self._suppressed = suppressed_token_ids
        self._counts: dict[int, TokenCounts] = {}
        self._greens: GreenList | None = None

    def forget(self, seq_id: int) -> None:
        """Drop a sequence's counts."""
        self._counts.pop(seq_id, None)

    def processed(
        self, seq_id: int, sequence: Sequence, logits: Logits, allowed: Allowed | None
    ) -> Logits:
        """A row after all of them; the very same array where there is nothing to do.

        `allowed` says which tokens a grammar lets come, and has dealt with `min_new_tokens`; None
        is no grammar.
        """
        params = sequence.sampling
        masked = self._suppressed
        if allowed is None:
            masked = masked + end_token_ids_to_mask(sequence)
        steered = params.watermark is not None or params.logit_bias or _penalizes(params)
        if not steered and not masked and allowed is None:
            return logits
        logits = logits.copy()
        if params.watermark is not None:
            self._mark(logits, sequence.token_ids[-1], params.watermark)
        for token_id, bias in params.logit_bias.items():
            if 0 <= token_id < self._n_vocab:
                logits[token_id] += bias
        if _penalizes(params):
            ids, counts = self._counts_of(seq_id, sequence).update()
            _penalize(logits, ids, counts, params)
        if allowed is not None:
            logits = np.where(allowed, logits, np.float32(-np.inf))
        if masked:
            logits[masked] = -np.inf
        return logits

    def _mark(self, logits: Logits, previous: int, mark: Watermark) -> None:
        if self._greens is None:
            self._greens = GreenList(self._n_vocab)
        # Adding nothing to the others is ten times as fast as picking out the green ones.
        logits += self._greens.after(previous, mark.gamma) * np.float32(mark.delta)

    def _counts_of(self, seq_id: int, sequence: Sequence) -> TokenCounts:
        counts = self._counts.get(seq_id)
        if counts is None or counts.sequence is not sequence:
            counts = self._counts[seq_id] = TokenCounts(sequence)
        return counts


def _penalizes(params: SamplingParams) -> bool:
    penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
    return penalties != (1.0, 0.0, 0.0)


def _penalize(
    logits: Logits,
    ids: npt.NDArray[np.int64],
    counts: npt.NDArray[np.float64],
    params: SamplingParams,
) -> None:
    seen = logits[ids].astype(np.float64)
    penalty = params.repetition_penalty
    seen = np.where(seen > 0, seen / penalty, seen * penalty)
    seen -= counts * params.frequency_penalty + (counts > 0) * params.presence_penalty
    logits[ids] = seen


def end_token_ids_to_mask(sequence: Sequence) -> list[int]:
    """End tokens that may not come yet, because of `min_new_tokens`."""
    stopping = sequence.stopping
    if sequence.num_output_tokens >= stopping.min_new_tokens:
        return []
    return [*sequence.eos_token_ids, *stopping.stop_token_ids]


def needs_only_argmax(sequences: Items[Sequence]) -> bool:
    """Whether all of these are plain greedy: nothing to process, no logprobs, no grammar."""
    return all(
        sequence.sampling.greedy
        and sequence.request.top_logprobs is None
        and sequence.request.grammar is None
        and sequence.sampling.watermark is None
        and not sequence.sampling.logit_bias
        and not _penalizes(sequence.sampling)
        and sequence.num_output_tokens >= sequence.stopping.min_new_tokens
        for sequence in sequences
    )
