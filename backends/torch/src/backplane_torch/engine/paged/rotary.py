"""Rotary frequencies that would change with the longest sequence of a batch, made fixed.

Cached keys were turned by the frequencies of their time, and what else is in a batch must not
change a sequence's text: they become those of the longest sequence that there may be.
"""

from typing import Any, Final

import torch
from torch import nn

# transformers updates the frequencies of these in every pass; it goes by the name.
_CHANGING: Final = ("dynamic", "longrope")
_FIXED: Final = "fixed"


def fix_frequencies(model: nn.Module, max_total_tokens: int) -> bool:
    """Let rotary embeddings keep the frequencies of a sequence of `max_total_tokens`.

    Returns:
        Whether there were any that would have changed.
    """
    found = False
    for module in model.modules():
        kinds: Any = getattr(module, "rope_type", None)
        if isinstance(kinds, str) and _changes(kinds):
            _settle(module, max_total_tokens, {})
            module.rope_type = _FIXED  # pyright: ignore[reportArgumentType] -- no submodule
            found = True
        elif isinstance(kinds, dict):
            for layer_type in [name for name, kind in kinds.items() if _changes(kind)]:
                _settle(module, max_total_tokens, {"layer_type": layer_type})
                kinds[layer_type] = _FIXED
                found = True
    return found


def _changes(kind: str) -> bool:
    return any(name in kind for name in _CHANGING)


def _settle(rotary: nn.Module, max_total_tokens: int, which: dict[str, str]) -> None:
    """Have the frequencies updated for the last position of the longest sequence."""
    device = next(rotary.buffers()).device
    last = torch.tensor([[max_total_tokens - 1]], device=device)
    with torch.no_grad():
        rotary(torch.zeros(1, 1, 1, device=device), last, **which)
