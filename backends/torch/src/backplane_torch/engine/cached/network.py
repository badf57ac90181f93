"""`Network`: one forward pass of equally long sequences through a model of transformers.

Knows how a model takes its tokens and its cache, and nothing of who else is in the step.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import torch
from backplane_core.batching.executor import ScheduledSequence
from backplane_core.errors import ModelError
from transformers import PreTrainedModel

from backplane_torch.engine.cached.head_rows import HeadRows
from backplane_torch.engine.cached.layers import Layer, unknown_tensors
from backplane_torch.state_plan import StateShape


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What one sequence has computed in a step.

    Attributes:
        seq_id: of the sequence.
        key: sequences with equal keys are computed together.
        token_ids: what the decoder takes.
        prompt_ids: what the encoder takes before; none where it has done so, or there is none.
        is_first: there is no cache of the sequence yet.
        positions: those of `token_ids` whose logits are asked for.
    """

    seq_id: int
    key: tuple[int, ...]
    token_ids: list[int]
    prompt_ids: list[int]
    is_first: bool
    positions: list[int]


class Network(ABC):
    """A loaded model that is asked for logits.

    Attributes:
        shape: what sequences take of memory.
        trimmable: the tail of a sequence can be dropped from its cache.
    """

    shape: StateShape
    trimmable: bool

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._head = HeadRows(model)

    @abstractmethod
    def share_of(self, scheduled: ScheduledSequence) -> Share | None:
        """What there is to compute of a scheduled sequence; None if nothing can be yet."""

    @abstractmethod
    def compute(
        self, shares: list[Share], layers: list[Layer] | None
    ) -> tuple[torch.Tensor, list[Layer]]:
        """Compute shares with equal keys.

        Args:
            shares: a sequence each.
            layers: their cache, row by row, which is added to; None makes one.

        Returns:
            Logits, [rows, vocabulary], by share and position, and the cache.
        """

    def close(self) -> None:
        """Let go of the model."""
        self._head.close()
        del self._model

    def _call(self, rows: list[tuple[int, int]], **inputs: Any) -> torch.Tensor:
        """Logits of these rows, each a sequence and a position."""
        # An output layer need not be able to compute nothing: it computes a row that nobody gets.
        with self._head.only(rows or [(0, 0)], self._model.device):
            logits: torch.Tensor = self._model(**inputs, use_cache=True, return_dict=True).logits
        if logits.dim() != 2:  # noqa: PLR2004 -- rows by vocabulary
            raise ModelError(
                f"{type(self._model).__name__} does not let its output layer make the logits",
                remedy="choose another model",
            )
        return logits[: len(rows)]


def rows_of(shares: list[Share]) -> list[tuple[int, int]]:
    """Which rows of logits are asked for: the place of a share, and a position."""
    return [(place, position) for place, share in enumerate(shares) for position in share.positions]


def check_layers(model: PreTrainedModel, layers: list[Layer]) -> None:
    """Refuse a cache, filled, of which a sequence's part cannot be told apart.

    Raises:
        ModelError: a layer of it holds more than is known here.
    """
    for layer in layers:
        if unknown := unknown_tensors(layer):
            raise ModelError(
                f"{type(model).__name__} keeps {', '.join(unknown)} in {type(layer).__name__}, "
                "of which sequences cannot be told apart",
                remedy="choose a model that the other path or another backend serves",
            )
