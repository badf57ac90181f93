"""`AttentionKernel`: attention over a paged cache, as each device computes it best.

One forward pass has one `PagedBatch` per group of layers, shared by all of them.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import torch


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """What a layer's attention computes.

    Attributes:
        num_kv_heads: heads of keys and values.
        num_query_heads: a multiple of these.
        key_width, value_width: numbers of a head's key, and of its value.
        scaling: what a product of query and key is multiplied by.
        window: a token sees itself and the `window - 1` before it; None sees all before it.
        softcap: scores s become softcap · tanh(s / softcap), before the mask; None is off.
        has_sinks: each query head has a learned score that takes its share and gives nothing.
    """

    num_kv_heads: int
    num_query_heads: int
    key_width: int
    value_width: int
    scaling: float
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """A sequence's tokens in a flat batch.

    Attributes:
        begin, end: rows of the batch.
        start: position of the first.
        block_table: physical blocks by position // block size; -1 where a window has left it.
    """

    begin: int
    end: int
    start: int
    block_table: list[int]


class AttentionKernel(ABC):
    """Writes a step's keys and values into a layer's cache, and attends."""

    @abstractmethod
    def create_cache(
        self, shape: AttentionShape, num_blocks: int, block_size: int, dtype: torch.dtype
    ) -> Any:
        """A layer's keys and values, in the kernel's own layout."""

    @abstractmethod
    def plan(
        self, stretches: list[Stretch], num_decodes: int, block_size: int, window: int | None
    ) -> Any:
        """What all layers of one window share in a step: indices, masks.

        The first `num_decodes` stretches have one row each.
        """

    @abstractmethod
    def attend(
        self,
        shape: AttentionShape,
        cache: Any,
        plan: Any,
        *,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Write, then attend.

        Args:
            shape: of the layer.
            cache: of the layer.
            plan: of the step.
            query: [query heads, tokens, key width].
            key: [kv heads, tokens, key width].
            value: [kv heads, tokens, value width].
            sinks: [query heads], where the layer has them.

        Returns:
            [tokens, query heads, value width].
        """
