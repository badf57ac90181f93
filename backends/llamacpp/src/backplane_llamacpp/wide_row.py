"""One row over the whole vocabulary: its weights, and cuts of them without sorting it.

float32, a few passes over buffers that are reused. Knows nothing of sampling parameters.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Sums = npt.NDArray[np.float64]

_NOBODY: Ids = np.empty(0, np.intp)

# Sums within a block are float32, those of blocks float64: neither slow nor inexact.
_BLOCK = 512
# Maxima of columns cost one pass, and the k-th of them is at most the k-th of all.
_COLUMNS = 1024
_FEW_COLUMNS = _COLUMNS // 4
_SAMPLE = 2048
# Where nobody weighs more than one part of so many, a sample is good enough.
_FLAT = 256.0
_NUM_HEAVY = 64


class WideRow:
    """Buffers for one row at a time: `weigh` it, then cut.

    Attributes:
        weights: of all tokens, of the highest 1; 0 for those that were cut and for what lies
            beyond the vocabulary.
    """

    def __init__(self, n_vocab: int) -> None:
        width = -(-n_vocab // _BLOCK) * _BLOCK
        self._n_vocab: Final = n_vocab
        self._stride: Final = max(1, width // _SAMPLE)
        self._uncut, self._cut = np.zeros(width, np.float32), np.zeros(width, np.float32)
        self._above, self._edge = np.empty(width, np.bool_), np.empty(width, np.bool_)
        self._masked = np.empty(n_vocab, np.float32)
        self._ones = np.ones(_BLOCK, np.float32)
        self._sums = np.empty(width // _BLOCK, np.float32)
        self.weights = self._uncut

    def masked(self, logits: Floats, forbidden: Flags) -> Floats:
        """A copy of a row, -inf where forbidden; valid until the next row's."""
        np.copyto(self._masked, logits)
        np.copyto(self._masked, -np.inf, where=forbidden)
        return self._masked

    def highest(self, logits: Floats) -> float:
        """The highest logit; not a number where one of them is not."""
        return float(logits.max())

    def weigh(self, logits: Floats, highest: float, temperature: float) -> float:
        """Make a row's weights; their sum. `highest` is finite and that of the row."""
        row = self._uncut[: self._n_vocab]
        self.weights = self._uncut
        np.subtract(logits, np.float32(highest), out=row)
        if temperature != 1.0:
            row *= np.float32(1.0 / temperature)
        np.exp(row, out=row)
        return float(self._block_sums().sum(dtype=np.float64))

    def log_sum(self, logits: Floats) -> float:
        """The logarithm of the sum of a row's exponentials. May change the weights.

        Not a number where the row has none.
        """
        highest = self.highest(logits)
        if not math.isfinite(highest):
            return math.nan
        return highest + math.log(self.weigh(logits, highest, 1.0))

    def top(self, logits: Floats, k: int) -> Ids:
        """The k highest of a row, or all, best first; the lowest ids among equals."""
        k = min(k, len(logits))
        ids = _highest_ids(logits, k)
        return ids[descending(logits[ids])[:k]]

    def heaviest(self, logits: Floats, total: float) -> Ids:
        """Ascending ids that may hold a good part of all weight; none where all hold little."""
        few = min(_NUM_HEAVY, self._n_vocab)
        return _NOBODY if total > _FLAT else np.sort(self.top(logits, few))

    def index_at(self, number: float) -> int:
        """The first id at which the cumulative share of the weights exceeds `number`."""
        until = np.cumsum(self._block_sums(), dtype=np.float64)
        target = number * until[-1]
        block = first_beyond(until, target)
        start = block * _BLOCK
        inside = np.cumsum(self.weights[start : start + _BLOCK], dtype=np.float64)
        return start + first_beyond(inside, target - (until[block - 1] if block else 0.0))

    def keep_from(self, least: float) -> None:
        """Cut weights below."""
        np.greater_equal(self.weights, np.float32(least), out=self._above)
        np.multiply(self.weights, self._above, out=self._cut)
        self.weights = self._cut

    def keep_highest(self, mass: float, total: float, heaviest: Ids = _NOBODY) -> None:
        """Keep the fewest and highest weights that reach `mass` of a sum of `total`.

        `heaviest` is of a row whose weight lies on few: no sample of it would tell.
        """
        self._reach(self.weights, mass, total, heaviest)

    def keep_typical(self, share: float) -> None:
        """Keep those whose surprise is nearest to the entropy, until they reach a share."""
        weights = self.weights
        total = float(self._block_sums().sum(dtype=np.float64))
        scores = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
        mean = np.multiply(weights, scores).sum(dtype=np.float64).item() / total
        # Surprise and entropy, both less the same: a logarithm of the sum.
        scores -= np.float32(mean)
        np.negative(np.abs(scores, out=scores), out=scores)
        scores[weights == 0] = -np.inf
        self._reach(scores, share * total, total)

    def _block_sums(self) -> Floats:
        return np.vecdot(self.weights.reshape(-1, _BLOCK), self._ones, out=self._sums)

    def _reach(self, scores: Floats, mass: float, total: float, known: Ids = _NOBODY) -> None:
        """Keep the shortest beginning, by descending score, whose weights reach `mass`.

        A sample tells about where that ends; those `known` to score best need no guess. What is
        above is summed, and what lies between there and the true end is little: that is sorted.
        """
        weights = self.weights
        sample, until = self._sample(scores, total, known)
        place = min(int(np.searchsorted(until, mass)), len(sample) - 1)
        np.greater_equal(scores, sample[place], out=self._above)
        self.weights = cut = self._uncut if weights is self._cut else self._cut
        np.multiply(weights, self._above, out=cut)
        reached = float(self._block_sums().sum(dtype=np.float64))
        missing = mass - reached
        distance = abs(int(np.searchsorted(until, until[place] + missing)) - place)
        while True:
            distance += 3 + 3 * math.isqrt(distance)  # three standard deviations
            bound = _bound(sample, place + distance if missing > 0 else place - distance)
            np.greater_equal(scores, bound, out=self._edge)
            between = np.flatnonzero(np.not_equal(self._above, self._edge, out=self._edge))
            inside = float(weights[between].sum(dtype=np.float64))
            if math.isinf(bound) or inside >= missing > 0 or inside > -missing >= 0:
                break
            distance *= 2
        order = between[descending(scores[between])]
        below = reached if missing > 0 else max(0.0, reached - inside)
        sums = below + np.cumsum(weights[order].astype(np.float64))
        num_kept = int(np.searchsorted(sums, mass)) + 1
        cut[order[:num_kept]] = weights[order[:num_kept]]
        cut[order[num_kept:]] = 0.0

    def _sample(self, scores: Floats, total: float, known: Ids) -> tuple[Floats, Sums]:
        """Every so-maniest score, descending, and the weight that all down to each may have."""
        if scores is self.weights:
            sample = weights = np.sort(scores[:: self._stride])[::-1]
        else:
            sample = scores[:: self._stride]
            order = descending(sample)
            sample, weights = sample[order], self.weights[:: self._stride][order]
        until = weights.astype(np.float64)
        known_sum = 0.0
        if len(known):
            known_sum = float(self.weights[known].sum(dtype=np.float64))
            until[sample >= scores[known].min()] = 0.0
        np.cumsum(until, out=until)
        until *= (total - known_sum) / max(until[-1], float(np.finfo(np.float32).tiny))
        until += known_sum
        return sample, until


def _highest_ids(logits: Floats, k: int) -> Ids:
    """At least the k highest of a row, and all that equal the last of them; ascending."""
    num_whole = len(logits) // _COLUMNS
    columns = logits[: num_whole * _COLUMNS].reshape(num_whole, _COLUMNS)
    rest = logits[num_whole * _COLUMNS :]
    if k > _FEW_COLUMNS or not num_whole:
        kth = np.partition(logits, -k)[-k] if k < len(logits) else -np.inf
        return np.flatnonzero(logits >= kth)
    maxima = columns.max(axis=0)
    kth = np.partition(np.concatenate((maxima, rest)), -k)[-k]
    hit = np.flatnonzero(maxima >= kth)
    if len(hit) > _FEW_COLUMNS:
        return np.flatnonzero(logits >= kth)
    lines, places = np.nonzero(columns[:, hit] >= kth)
    others = np.flatnonzero(rest >= kth) + num_whole * _COLUMNS
    return np.concatenate((lines * _COLUMNS + hit[places], others))


def descending(scores: npt.NDArray[np.floating]) -> Ids:
    """Indices, best first; the lowest among equals."""
    return np.argsort(-scores, kind="stable")


def first_beyond(cumulative: Sums, target: float) -> int:
    """The first index above `target`; should rounding have left none, the last that adds to it."""
    last = int(np.searchsorted(cumulative, cumulative[-1]))
    return min(int(np.searchsorted(cumulative, target, side="right")), last)


def _bound(sample: Floats, place: int) -> float:
    if place < 0:
        return math.inf
    return sample[place].item() if place < len(sample) else -math.inf
