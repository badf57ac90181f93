"""Draws tokens from logits by the semantics of `backplane_core.sampling`.

The heavy step, finding the highest of a whole vocabulary, is llama.cpp's native top-k; what
remains is small and done in numpy. Knows nothing of contexts or batches.
"""

import numpy as np
import numpy.typing as npt
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import GenerationError
from backplane_core.sampling import SamplingParams, uniform

from backplane_llamacpp.logits_processors import Allowed, Logits, LogitsProcessors
from backplane_llamacpp.native.top_k import HighestLogits

Ids = npt.NDArray[np.intp]
Weights = npt.NDArray[np.float64]

# How many of the highest to look at first for top-p, and by what it grows until they suffice.
_FIRST_LOOK, _LOOK_FURTHER = 256, 8
# Beyond so many numbers their sums, not their own rounding, decide: float32 is twice as fast.
_MANY = 4096
_BLOCK = 512
# Hotter than this all tokens are equally likely; float32 has no room for much more.
_HOTTEST = 1e30


class Sampler:
    """Samples for many sequences; keeps penalty counts per `seq_id` until `forget`.

    `suppressed_token_ids` never come: the model file says so.
    """

    def __init__(self, n_vocab: int, suppressed_token_ids: list[int]) -> None:
        self._n_vocab = n_vocab
        self._all_ids: Ids = np.arange(n_vocab)
        self._highest = HighestLogits(n_vocab)
        self._processors = LogitsProcessors(n_vocab, suppressed_token_ids)

    def forget(self, seq_id: int) -> None:
        """Drop a sequence's counts."""
        self._processors.forget(seq_id)

    def close(self) -> None:
        """Free native samplers."""
        self._highest.close()

    def sample(
        self, seq_id: int, sequence: Sequence, logits: Logits, allowed: Allowed | None = None
    ) -> int:
        """The token after `sequence.token_ids`; `logits`, one row, are left as they are.

        Args:
            seq_id: what the sequence's counts are kept under.
            sequence: its parameters and tokens.
            logits: one row, of the whole vocabulary.
            allowed: which tokens a grammar lets come; None is no grammar.

        Raises:
            GenerationError: no token is possible, or the model's logits are not numbers.
        """
        processed = self.processed(seq_id, sequence, logits, allowed)
        highest = int(processed.argmax())
        if not np.isfinite(processed[highest]):
            raise GenerationError(
                "no token can follow: every logit is masked or not a number",
                remedy="look at the grammar, logit_bias and min_new_tokens; else the model file "
                "may be broken",
            )
        if sequence.sampling.greedy:
            return highest
        return self.draw(processed, sequence.sampling, sequence.seed, len(sequence.token_ids))

    def processed(
        self, seq_id: int, sequence: Sequence, logits: Logits, allowed: Allowed | None = None
    ) -> Logits:
        """Watermark, bias, penalties and masks applied; the same array where there are none."""
        return self._processors.processed(seq_id, sequence, logits, allowed)

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
