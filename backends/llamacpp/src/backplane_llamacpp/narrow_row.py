"""Cuts among few tokens, in float64: their ids and weights, sorted as the rules say.

Knows nothing of buffers.
"""

import numpy as np
import numpy.typing as npt
from backplane_core.sampling import SamplingParams

from backplane_llamacpp.wide_row import Ids, descending

Weights = npt.NDArray[np.float64]


def weights_of(logits: npt.NDArray[np.float32], temperature: float) -> Weights:
    """Of the highest 1."""
    return np.exp((logits.astype(np.float64) - float(logits.max())) / temperature)


def cut(
    ids: Ids, weights: Weights, params: SamplingParams, *, total: float | None = None
) -> tuple[Ids, Weights]:
    """What `top_p`, `min_p` and `typical_p` keep.

    Args:
        ids: ascending.
        weights: theirs.
        params: whose cuts to make; `top_k` is made already.
        total: what `top_p` is a share of; None is the sum of the weights.
    """
    if params.top_p < 1.0:
        mass = params.top_p * (weights.sum() if total is None else total)
        kept = _reaching(weights, weights, mass)
        ids, weights = ids[kept], weights[kept]
    if params.min_p > 0.0:
        kept = np.flatnonzero(weights >= params.min_p * weights.max())
        ids, weights = ids[kept], weights[kept]
    if params.typical_p < 1.0:
        kept = _typical(weights, params.typical_p)
        ids, weights = ids[kept], weights[kept]
    return ids, weights


def _typical(weights: Weights, share: float) -> Ids:
    """Indices of the locally typical set: those of a surprise nearest to the entropy."""
    possible = np.flatnonzero(weights > 0)
    shares = weights[possible] / weights.sum()
    surprise = -np.log(shares)
    distance = np.abs(surprise - (shares * surprise).sum())
    return possible[_reaching(-distance, shares, share)]


def _reaching(scores: Weights, weights: Weights, mass: float) -> Ids:
    """Indices, ascending, of the highest scores whose weights reach a mass; at least one."""
    order = descending(scores)
    num_kept = int(np.searchsorted(np.cumsum(weights[order]), mass)) + 1
    return np.sort(order[:num_kept])
