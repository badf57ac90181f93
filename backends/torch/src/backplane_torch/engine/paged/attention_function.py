"""The attention function that transformers' models call, registered under a name of our own.

The model has turned queries and keys by then; what is hung on the calling module does the rest. To
a name without a mask function transformers' models hand no mask.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import torch
from torch import nn
from transformers import AttentionInterface

ATTENTION: Final = "backplane_paged"
_TARGET: Final = "backplane_attention"


class AttentionTarget(Protocol):
    """What an attention module's calls go to."""

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        """Attend with [heads, tokens, width] each; returns [tokens, query heads, width]."""
        ...


def hang(module: nn.Module, target: AttentionTarget | None) -> None:
    """Let a module's calls go to `target`, in place of what was there."""
    # Around torch's own, which would look for parameters in it.
    object.__setattr__(module, _TARGET, target)


def target_of(module: nn.Module) -> AttentionTarget:
    """What `hang` hung there."""
    return getattr(module, _TARGET)


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' signature: [1, heads, tokens, width] in, [1, tokens, heads, width] out."""
    if attention_mask is not None:
        raise AssertionError("a model hands a mask to an attention that has none")
    attended = target_of(module).attend(module, query[0], key[0], value[0], options)
    return attended.unsqueeze(0), None


AttentionInterface.register(ATTENTION, _attend)
