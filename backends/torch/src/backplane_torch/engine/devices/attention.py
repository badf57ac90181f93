"""`AttentionKernel`: attention over a paged cache, as each device computes it best.

Layers of one window share what a step needs of indices and masks: its `plan`.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch

Cache = TypeVar("Cache")
Plan = TypeVar("Plan")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """What a layer's attention computes.

    Attributes:
        num_query_heads: a multiple of `num_kv_heads`.
        num_kv_heads: heads of keys and values.
        key_width, value_width: numbers of a head's key, and of its value.
        scaling: what a product of query and key is multiplied by.
        window: a token sees itself and the `window - 1` before it; None sees all before it.
        softcap: scores s become softcap · tanh(s / softcap); None is off.
        has_sinks: each query head has a learned score that takes its share and gives nothing.
    """

    num_query_heads: int
    num_kv_heads: int
    key_width: int
    value_width: int
    scaling: float
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False

    @property
    def values_per_token(self) -> int:
        """Numbers that the cache holds for a token."""
        return self.num_kv_heads * (self.key_width + self.value_width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """One sequence's tokens in a flat batch.

    Attributes:
        begin, end: its rows.
        start: position of the first.
        block_table: physical blocks by position // block size; -1 where a window has left one.
    """

    begin: int
    end: int
    start: int
    block_table: list[int]

    @property
    def num_tokens(self) -> int:
        """How many are computed."""
        return self.end - self.begin

    @property
    def context(self) -> int:
        """Positions that are there once these are written."""
        return self.start + self.end - self.begin


class AttentionKernel(ABC, Generic[Cache, Plan]):
    """Writes a step's keys and values into a layer's cache, and attends. Stateless.

    `Cache` is a layer's keys and values, `Plan` what a step's layers share; both are the kernel's
    own.
    """

    @abstractmethod
    def create_cache(self, shape: AttentionShape, num_blocks: int) -> Cache:
        """Room for a layer's keys and values."""

    @abstractmethod
    def plan(self, stretches: list[Stretch], num_decodes: int, window: int | None) -> Plan:
        """What the layers of one window share in a step.

        The first `num_decodes` stretches have one row each. Their blocks hold anything, also NaN,
        where nothing was written yet.
        """

    @abstractmethod
    def attend(
        self,
        shape: AttentionShape,
        cache: Cache,
        plan: Plan,
        *,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Write, then attend.

        Args:
            shape: of the layer.
            cache: of the layer; changed.
            plan: of the step.
            query: [query heads, tokens, key width].
            key: [kv heads, tokens, key width].
            value: [kv heads, tokens, value width].
            sinks: [query heads], where the layer has them.

        Returns:
            [tokens, query heads, value width], contiguous.
        """
