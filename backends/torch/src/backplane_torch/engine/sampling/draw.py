"""The draw of `docs/sampling.md`: where a number in [0, 1) falls among weights, for all rows."""

from typing import Final

import torch

# Sums within a block are float32, those of blocks in the numbers' type: neither slow nor inexact.
_BLOCK: Final = 512


def column_at(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The first column at which the cumulative share of the weights exceeds a number.

    Args:
        weights: [rows, width], float32, at least 0 and one of each row above.
        numbers: [rows], in the type in which sums are taken.

    Returns:
        Columns, [rows]; should rounding have left none, the last whose weight is not 0.
    """
    width = weights.shape[1]
    numbers = numbers.unsqueeze(1)
    if width <= 2 * _BLOCK:
        until = weights.cumsum(-1, dtype=numbers.dtype)
        return _first_beyond(until, numbers * until[:, -1:]).squeeze(1)
    until = _block_sums(weights).cumsum(-1, dtype=numbers.dtype)
    targets = numbers * until[:, -1:]
    blocks = _first_beyond(until, targets)
    before = until.gather(1, (blocks - 1).clamp_(min=0)).masked_fill_(blocks == 0, 0.0)
    columns = blocks * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    inside = weights.gather(1, columns.clamp(max=width - 1)).masked_fill_(columns >= width, 0.0)
    places = _first_beyond(inside.cumsum(-1, dtype=numbers.dtype), targets - before)
    return columns.gather(1, places).squeeze(1)


def _block_sums(weights: torch.Tensor) -> torch.Tensor:
    """[rows, blocks], the last one of what is left."""
    width = weights.shape[1]
    whole = width - width % _BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1)
    if whole == width:
        return sums
    return torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], 1)


def _first_beyond(until: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[rows, 1]: the first of ascending sums above a target, or the last that added to them."""
    last = (until < until[:, -1:]).sum(-1, keepdim=True)
    return torch.minimum((until <= targets).sum(-1, keepdim=True), last)
