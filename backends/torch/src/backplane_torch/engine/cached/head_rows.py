"""`HeadRows`: a model's output layer computes the rows that are asked for, and no others.

A chunk of a thousand tokens would have a thousand rows of logits, of which one is wanted. Some
classes have an argument for that; all have an output layer.
"""

import contextlib
from collections.abc import Generator

import torch
from backplane_core.errors import ModelError
from torch import nn
from transformers import PreTrainedModel


class HeadRows:
    """Stands before the output layer of a model until `close`.

    Raises:
        ModelError: it has none.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        if head is None:
            raise ModelError(
                f"{type(model).__name__} has no output layer, so it does not continue text",
                remedy="choose a model that does",
            )
        self._hook = head.register_forward_pre_hook(self._select)
        self._wanted: tuple[torch.Tensor, torch.Tensor] | None = None

    @contextlib.contextmanager
    def only(self, rows: list[tuple[int, int]], device: torch.device) -> Generator[None]:
        """Of a forward pass in here, these rows, at least one, each a sequence and a position."""
        sequences, positions = torch.tensor(rows, device=device).unbind(1)
        self._wanted = sequences, positions
        try:
            yield
        finally:
            self._wanted = None

    def close(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    def _select(
        self, _head: nn.Module, inputs: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...] | None:
        """Narrow [sequences, positions, width] to [rows, width]."""
        if self._wanted is None:
            return None
        return (inputs[0][self._wanted], *inputs[1:])
