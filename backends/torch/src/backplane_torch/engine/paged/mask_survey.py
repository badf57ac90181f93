"""What a model's masks hide, found out by a mask function that hides nothing.

A mask that it makes says how far a layer's tokens see, to whomever it is handed to.
"""

from collections.abc import Callable
from typing import Any, Final

import torch

from backplane_torch.engine.paged.not_paged import LooksAheadError, NotPagedError

_WINDOW: Final = "backplane_window"


def make_mask(
    *,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., torch.Tensor],
    local_size: int | None = None,
    device: torch.device | None = None,
    **_others: Any,
) -> torch.Tensor:
    """The mask function of a survey: hides nothing, and says what it ought to.

    Raises:
        LooksAheadError: a token sees one that follows it.
        NotPagedError: it sees other tokens than the `local_size` (None is all) up to itself.
    """
    farthest = 2 * (local_size or kv_length)
    places = {0, 1, farthest}
    if local_size is not None:
        places |= {local_size - 1, local_size, local_size + 1}
    keys = torch.tensor(sorted(places), device=device)
    queries = keys.unsqueeze(1)
    expected = keys <= queries
    if local_size is not None:
        expected &= keys > queries - local_size
    first = keys.new_zeros(())  # the sequence and the head
    try:
        seen = mask_function(first, first, queries, keys)
    except IndexError:  # it asks for tokens that a shorter text does not have
        seen = torch.zeros_like(expected)
    if (seen & (keys > queries)).any():
        raise LooksAheadError
    if not torch.equal(seen.expand_as(expected), expected):
        raise NotPagedError("its tokens see others than those before them")
    mask = torch.zeros(1, 1, q_length, kv_length, device=device)
    setattr(mask, _WINDOW, local_size)  # which what a model makes of it has no more
    return mask


def window_of(mask: torch.Tensor | None, told: int | None) -> int | None:
    """How many tokens a layer sees, by its mask or, where a model makes none, by what it is told.

    Raises:
        NotPagedError: the mask is one of the model's making.
    """
    if mask is None:
        return int(told) if told else None
    if not hasattr(mask, _WINDOW):
        raise NotPagedError("it makes masks of its own")
    return getattr(mask, _WINDOW)
