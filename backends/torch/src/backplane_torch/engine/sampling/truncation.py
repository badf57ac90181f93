"""What cuts keep of each row: top-k, top-p, min-p, typical-p, by the rules of `docs/sampling.md`.

Columns are candidates by ascending token id: the whole vocabulary, or few of it.
"""

from typing import Final

import torch
from torch.nn.functional import pad

from backplane_torch.engine.sampling.highest import ordered_bits

# Rows up to so wide are sorted.
_SORTED_WIDTH: Final = 4096
# Of wider rows so many numbers at a time: they stay in a processor's cache.
_NUM_AT_ONCE: Final = 1 << 17
# The digits of a 32-bit place, the first one highest: where they begin, how many bits they have.
_DIGITS: Final = ((21, 11), (10, 11), (0, 10))
_TINY: Final = torch.finfo(torch.float32).tiny


def reaching(scores: torch.Tensor, weights: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """The shortest beginning, by descending score, whose weights reach a mass; at least one.

    Args:
        scores: [rows, width], float32; the lower column comes first among equals.
        weights: likewise, at least 0.
        mass: [rows]; infinite keeps all. Weights of wide rows are summed in its type.

    Returns:
        What is kept, [rows, width], bool.
    """
    mass = mass.unsqueeze(1).clamp(min=_TINY)
    width = scores.shape[1]
    if width <= _SORTED_WIDTH:
        return _by_sorting(scores, weights, mass)
    size = max(1, _NUM_AT_ONCE // width)
    parts = zip(scores.split(size), weights.split(size), mass.split(size), strict=True)
    return torch.cat([_by_digits(*part) for part in parts])


def keep_top_k(logits: torch.Tensor, top_k: torch.Tensor) -> torch.Tensor:
    """The logits, -inf where not among the highest of a row; an infinite `top_k` keeps all."""
    kept = reaching(logits, torch.ones_like(logits), top_k)
    return logits.masked_fill(~kept, -torch.inf)


def keep_top_p(logits: torch.Tensor, weights: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """The weights, 0 where cut; those of a whole row, here or not, sum to 1."""
    return weights * reaching(logits, weights, top_p)


def keep_min_p(weights: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    """The weights, 0 where below a share of the highest."""
    least = min_p.unsqueeze(1).to(weights.dtype) * weights.amax(-1, keepdim=True)
    return weights * (weights >= least)


def keep_typical_p(weights: torch.Tensor, typical_p: torch.Tensor) -> torch.Tensor:
    """The weights, 0 outside the locally typical set."""
    shares = weights / weights.sum(-1, keepdim=True)
    entropy = torch.special.entr(shares).sum(-1, keepdim=True)
    distances = (-shares.log() - entropy).abs()  # infinite for what has no share
    return weights * reaching(-distances, shares, typical_p)


def _by_sorting(scores: torch.Tensor, weights: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    until = weights.gather(1, order).cumsum(-1)
    kept = pad(until[:, :-1], (1, 0)) < mass
    return torch.empty_like(kept).scatter_(1, order, kept)


def _by_digits(scores: torch.Tensor, weights: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """As sorting gives it, by finding the score at which the mass is reached, digit by digit.

    A score's place is a 32-bit number, the lower the better. Per digit, weights are summed by its
    values, among the places that begin with what is found already; all before are one value more.
    """
    places = torch.iinfo(torch.int32).max - ordered_bits(scores).long()
    summed = weights.to(mass.dtype)
    found = torch.zeros_like(mass, dtype=torch.int64)
    until, number = mass, found
    for shift, num_bits in _DIGITS:
        num_values = 1 << num_bits
        found <<= num_bits
        values = ((places >> shift) - found).clamp_(-1, num_values).add_(1)
        sums = summed.new_zeros(len(summed), num_values + 2).scatter_add_(1, values, summed)
        until = sums.cumsum(-1)
        number = (until < mass).sum(-1, keepdim=True).clamp_(1, num_values)
        found += number - 1
    below = until.gather(1, number - 1)
    equal = places == found
    equals = weights * equal
    return (places < found) | (equal & (below + equals.cumsum(-1) - equals < mass))
