"""The highest of each row, the lowest ids first among equals, without sorting whole vocabularies.

A row is looked at in groups of neighbouring ids: the k highest of all lie in those k groups whose
highest are the highest. Dense operations of fixed shapes alone, so that no device waits.
"""

from typing import Final

import torch

# The maximum of a group of this size costs no more than reading it; a smaller one's does.
_SMALLEST_GROUP: Final = 32
_ARGMAX_GROUP: Final = 128
_LOW_BITS: Final = 0xFFFFFFFF


def argmax(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of rows of any float type, [rows, width]: the highest value and its id, [rows] each.

    Several times as fast as `torch.argmax` on a CPU. A NaN is the highest of its row.
    """
    width = logits.shape[1]
    if width <= 2 * _ARGMAX_GROUP:
        values, ids = logits.max(-1)
        return values, ids
    values, groups = _maxima(logits, _ARGMAX_GROUP).max(-1, keepdim=True)
    # The last group may be short: its last id then stands in for those that are not there.
    ids = _members(groups, _ARGMAX_GROUP).clamp_(max=width - 1)
    places = logits.gather(1, ids).argmax(-1, keepdim=True)
    return values.squeeze(1), ids.gather(1, places).squeeze(1)


def highest(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Ids of the k highest of float32 rows, [rows, k], best first; 1 ≤ k ≤ width."""
    width = logits.shape[1]
    size = _group_size(width, k)
    if not size:
        ids = torch.arange(width, device=logits.device)
        return _ids_of(_keys(logits, ids).topk(k).values)
    maxima = _maxima(logits, size)
    keys = _keys(maxima, torch.arange(maxima.shape[1], device=logits.device))
    groups = _ids_of(keys.topk(k, sorted=False).values)
    ids = _members(groups, size)
    inside = ids < width
    values = logits.gather(1, ids.clamp(max=width - 1))
    keys = _keys(values, ids).masked_fill_(~inside, torch.iinfo(torch.int64).min)
    return _ids_of(keys.topk(k).values)


def ordered_bits(values: torch.Tensor) -> torch.Tensor:
    """float32 → int32 of the same order; a NaN is an extreme."""
    bits = (values + 0.0).view(torch.int32)  # -0.0 becomes 0.0, which it equals
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _group_size(width: int, k: int) -> int:
    """A power of two that leaves few groups, and few members of k of them; 0 is not to group."""
    size = _SMALLEST_GROUP
    while k * size * size * 2 < width:
        size *= 2
    return size if 2 * k * size <= width else 0


def _maxima(logits: torch.Tensor, size: int) -> torch.Tensor:
    """[rows, groups], the last one of what is left."""
    width = logits.shape[1]
    whole = width - width % size
    maxima = logits[:, :whole].unflatten(1, (-1, size)).amax(-1)
    if whole == width:
        return maxima
    return torch.cat([maxima, logits[:, whole:].amax(-1, keepdim=True)], 1)


def _members(groups: torch.Tensor, size: int) -> torch.Tensor:
    """Ids in groups [rows, k], which may lie beyond the width: [rows, k * size]."""
    within = torch.arange(size, device=groups.device)
    return (groups.unsqueeze(-1) * size + within).flatten(1)


def _keys(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Numbers, no two of a row equal, in whose order the higher value wins, then the lower id."""
    return (ordered_bits(values).long() << 32) | (_LOW_BITS - ids)


def _ids_of(keys: torch.Tensor) -> torch.Tensor:
    return _LOW_BITS - (keys & _LOW_BITS)
