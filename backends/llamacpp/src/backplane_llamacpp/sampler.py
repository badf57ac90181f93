"""Draws tokens from logits by the semantics of `backplane_core.sampling`.

The heavy step, finding the highest of a whole vocabulary, is llama.cpp's native top-k; what
remains is small and done in numpy. Knows nothing of contexts or batches.
"""

import collections
from collections.abc import Sequence as Items

import numpy as np
import numpy.typing as npt
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import GenerationError
from backplane_core.sampling import SamplingParams, uniform

from backplane_llamacpp.native.top_k import HighestLogits

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]
Weights = npt.NDArray[np.float64]

# How many of the highest to look at first for top-p, and by what it grows until they suffice.
_FIRST_LOOK, _LOOK_FURTHER = 256, 8
# Beyond so many numbers their sums, not their own rounding, decide: float32 is twice as fast.
_MANY = 4096
_BLOCK = 512
# Hotter than this all tokens are equally likely; float32 has no room for much more.
_HOTTEST = 1e30


class TokenCounts:
    """How often each token stands in a sequence's prompt and output, kept up step by step."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self._num_seen = 0
        self._counts: collections.Counter[int] = collections.Counter()

    def update(self) -> tuple[npt.NDArray[np.int64], Weights]:
        """Count what is new in the sequence and return all distinct ids with their counts."""
        token_ids = self.sequence.token_ids
        self._counts.update(token_ids[self._num_seen :])
        self._num_seen = len(token_ids)
        size = len(self._counts)
        ids = np.fromiter(self._counts.keys(), np.int64, size)
        return ids, np.fromiter(self._counts.values(), np.float64, size)


class Sampler:
    """Samples for many sequences; keeps penalty counts per `seq_id` until `forget`."""

    def __init__(self, n_vocab: int) -> None:
        self._n_vocab = n_vocab
        self._all_ids: Ids = np.arange(n_vocab)
        self._highest = HighestLogits(n_vocab)
        self._counts: dict[int, TokenCounts] = {}

    def forget(self, seq_id: int) -> None:
        """Drop a sequence's counts."""
        self._counts.pop(seq_id, None)

    def close(self) -> None:
        """Free native samplers."""
        self._highest.close()

    def sample(self, seq_id: int, sequence: Sequence, logits: Logits) -> int:
        """The token after `sequence.token_ids`; `logits`, one row, are left as they are.

        Raises:
            GenerationError: no token is possible, or the model's logits are not numbers.
        """
        processed = self.processed(seq_id, sequence, logits)
        highest = int(processed.argmax())
        if not np.isfinite(processed[highest]):
            raise GenerationError(
                "no token can follow: every logit is masked or not a number",
                remedy="look at logit_bias and min_new_tokens; else the model file may be broken",
            )
        if sequence.sampling.greedy:
            return highest
        return self.draw(processed, sequence.sampling, sequence.seed, len(sequence.token_ids))

    def processed(self, seq_id: int, sequence: Sequence, logits: Logits) -> Logits:
        """Bias, penalties and masks applied; the very same array where there are none."""
        params = sequence.sampling
        masked = end_token_ids_to_mask(sequence)
        penalized = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        if not params.logit_bias and not masked and penalized == (1.0, 0.0, 0.0):
            return logits
        logits = logits.copy()
        for token_id, bias in params.logit_bias.items():
            if 0 <= token_id < self._n_vocab:
                logits[token_id] += bias
        if penalized != (1.0, 0.0, 0.0):
            ids, counts = self._counts_of(seq_id, sequence).update()
            seen = logits[ids].astype(np.float64)
            penalty = params.repetition_penalty
            seen = np.where(seen > 0, seen / penalty, seen * penalty)
            logits[ids] = seen - counts * params.frequency_penalty - params.presence_penalty
        if masked:
            logits[masked] = -np.inf
        return logits

    def _counts_of(self, seq_id: int, sequence: Sequence) -> TokenCounts:
        counts = self._counts.get(seq_id)
        if counts is None or counts.sequence is not sequence:
            counts = self._counts[seq_id] = TokenCounts(sequence)
        return counts

    def candidates(self, logits: Logits, params: SamplingParams) -> tuple[Ids, Weights]:
        """What the truncations keep: ascending ids and their weights; temperature is not 0."""
        if 0 < params.top_k < self._n_vocab:
            ids = self.highest(logits, params.top_k)
        else:
            ids = self._all_ids
        scaled = self._scaled(logits if ids is self._all_ids else logits[ids], params.temperature)
        weights = np.exp(scaled)
        if params.top_p < 1.0:
            kept = self._reaching(scaled, weights, params.top_p)
            ids, weights = ids[kept], weights[kept]
        if params.min_p > 0.0:
            kept = np.flatnonzero(weights >= params.min_p * weights.max())
            ids, weights = ids[kept], weights[kept]
        if params.typical_p < 1.0:
            kept = self._typical(weights, params.typical_p)
            ids, weights = ids[kept], weights[kept]
        return ids, weights

    def _scaled(self, logits: Logits, temperature: float) -> Weights | Logits:
        """Logits below the highest over the temperature; float64 unless that is many numbers."""
        below = logits - logits.max()
        temperature = min(temperature, _HOTTEST)
        if len(logits) > _MANY:
            return below / np.float32(temperature)
        return below.astype(np.float64) / temperature

    def _reaching(self, scores: Weights | Logits, weights: Weights | Logits, share: float) -> Ids:
        """Indices, ascending, of the highest scores whose weights reach a share of all weight."""
        mass = share * weights.sum(dtype=np.float64)
        look = _FIRST_LOOK
        while True:
            highest = self.highest(scores, look)
            order = highest[_descending(scores[highest])]
            cumulative = np.cumsum(weights[order], dtype=np.float64)
            if cumulative[-1] >= mass or len(order) == len(scores):
                return np.sort(order[: int(np.searchsorted(cumulative, mass)) + 1])
            look *= _LOOK_FURTHER

    def _typical(self, weights: Weights | Logits, share: float) -> Ids:
        """Indices of the locally typical set: those of a surprise nearest to the entropy."""
        possible = np.flatnonzero(weights > 0)
        shares = weights[possible] / weights.sum(dtype=np.float64).astype(weights.dtype)
        surprise = -np.log(shares)
        entropy = (shares * surprise).sum(dtype=np.float64).astype(weights.dtype)
        return possible[self._reaching(-np.abs(surprise - entropy), shares, share)]

    def draw(self, logits: Logits, params: SamplingParams, seed: int, position: int) -> int:
        """One of the candidates, chosen by `uniform(seed, position)`."""
        ids, weights = self.candidates(logits, params)
        return int(ids[_index_at(weights, uniform(seed, position))])

    def highest(self, scores: Weights | Logits, k: int) -> Ids:
        """Indices of the k highest, ascending; among equals at the edge the lowest indices."""
        if k >= len(scores):
            return self._all_ids[: len(scores)]
        if scores.dtype == np.float64:
            return np.sort(_descending(scores)[:k])
        threshold = self._highest.kth(scores, k)
        indices = np.flatnonzero(scores >= threshold)
        if len(indices) > k:
            equal = indices[scores[indices] == threshold]
            indices = np.setdiff1d(indices, equal[k - len(indices) :], assume_unique=True)
        return indices

    def logprobs(
        self, logits: Logits, token_id: int, num_top: int
    ) -> tuple[float, list[tuple[int, float]]]:
        """Log-probability of a token, and the `num_top` highest, from the model's own logits."""
        peak = logits.max()
        normalizer = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
        top: list[tuple[int, float]] = []
        if num_top > 0:
            ids = self.highest(logits, num_top)
            ids = ids[_descending(logits[ids])]
            top = [(int(top_id), float(logits[top_id]) - normalizer) for top_id in ids]
        return float(logits[token_id]) - normalizer, top


def end_token_ids_to_mask(sequence: Sequence) -> list[int]:
    """End tokens that may not come yet, because of `min_new_tokens`."""
    stopping = sequence.stopping
    if sequence.num_output_tokens >= stopping.min_new_tokens:
        return []
    return [*sequence.eos_token_ids, *stopping.stop_token_ids]


def needs_only_argmax(sequences: Items[Sequence]) -> bool:
    """Whether all of these are plain greedy: no bias, penalties, masks or logprobs."""
    return all(
        sequence.sampling.greedy
        and sequence.request.top_logprobs is None
        and not sequence.sampling.logit_bias
        and sequence.sampling.repetition_penalty == 1.0
        and sequence.sampling.frequency_penalty == 0.0
        and sequence.sampling.presence_penalty == 0.0
        and sequence.num_output_tokens >= sequence.stopping.min_new_tokens
        for sequence in sequences
    )


def _index_at(weights: Weights | Logits, number: float) -> int:
    """The first index at which the cumulative share of the weights exceeds `number`.

    Block by block: cumulating a whole vocabulary would cost ten times as much as summing it.
    """
    starts = np.arange(0, len(weights), _BLOCK)
    until = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    target = number * until[-1]
    block = _first_beyond(until, target)
    start = int(starts[block])
    inside = np.cumsum(weights[start : start + _BLOCK], dtype=np.float64)
    target -= until[block - 1] if block else 0.0
    return start + _first_beyond(inside, target)


def _first_beyond(cumulative: Weights, target: float) -> int:
    """The first index above `target`; should rounding have left none, the last that adds to it."""
    last = int(np.searchsorted(cumulative, cumulative[-1]))
    return min(int(np.searchsorted(cumulative, target, side="right")), last)


def _descending(scores: Weights | Logits) -> Ids:
    return np.argsort(-scores, kind="stable")
