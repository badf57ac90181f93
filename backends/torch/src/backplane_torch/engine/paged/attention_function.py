"""The attention function that transformers' models call, registered under a name of our own.

The model has turned queries and keys by then; what is hung on the calling module does the rest. To
a name without a mask function transformers' models hand no mask.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import nn
from transformers import AttentionInterface

ATTENTION: Final = "backplane_paged"
_TARGET: Final = "backplane_attention"


class AttentionCall(NamedTuple):
    """What a model hands to its attention function.

    Attributes:
        module: which of its modules attends.
        query, key, value: [heads, tokens, width] each.
        mask: what its mask function made; None where the name has none.
        options: all else, by name.
    """

    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    options: Mapping[str, Any]


class AttentionTarget(Protocol):
    """What an attention module's calls go to."""

    def attend(self, call: AttentionCall) -> torch.Tensor:
        """Returns [tokens, query heads, width]."""
        ...


def hang(module: nn.Module, target: AttentionTarget | None) -> None:
    """Let a module's calls go to `target`, in place of what was there."""
    # Around torch's own, which would look for parameters in it.
    object.__setattr__(module, _TARGET, target)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' signature: [1, heads, tokens, width] in, [1, tokens, heads, width] out."""
    target: AttentionTarget = getattr(module, _TARGET)
    call = AttentionCall(module, query[0], key[0], value[0], attention_mask, options)
    return target.attend(call).unsqueeze(0), None


AttentionInterface.register(ATTENTION, attend)
