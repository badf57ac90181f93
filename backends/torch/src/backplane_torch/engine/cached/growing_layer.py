"""`GrowingLayer`: keys and values in buffers with room for the tokens to come.

Transformers' own layer joins what it has and one more token to a new tensor, for each token.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

# Of what is held, so much room is made beside it.
ROOM = 1 / 8


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` whose `keys` and `values` are the beginnings of larger buffers.

    Whoever shortens them to a beginning of theirs leaves the room where it is; any other tensors
    put in their place are taken over with the next token.
    """

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values of new tokens; those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _append(self.keys, key_states)
        self.values = _append(self.values, value_states)
        return self.keys, self.values


def with_room(layers: list[Any]) -> list[Any]:
    """Empty layers of a cache, those that only grow being such as here."""
    return [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in layers]


def _append(held: torch.Tensor | None, added: torch.Tensor) -> torch.Tensor:
    """[sequences, heads, tokens, width] with more tokens, in place where there is room."""
    sequences, heads, num_added, width = added.shape
    if held is None or not held.numel():
        held = added.new_empty(sequences, heads, 0, width)
    num_held = held.shape[2]
    end = num_held + num_added
    buffer = _buffer_of(held)
    if buffer.shape[2] < end:
        buffer = added.new_empty(sequences, heads, end + int(end * ROOM) + 1, width)
        buffer[:, :, :num_held] = held
    buffer[:, :, num_held:end] = added
    return buffer[:, :, :end]


def _buffer_of(held: torch.Tensor) -> torch.Tensor:
    """The whole of what a tensor is the beginning of, in tokens; itself where it is of nothing."""
    sequences, heads, num_tokens, width = held.shape
    row_bytes = sequences * heads * width * held.element_size()
    size = held.untyped_storage().nbytes() // row_bytes
    strides = (heads * size * width, size * width, width, 1)
    if num_tokens and held.storage_offset() == 0 and held.stride() == strides:
        return held.as_strided((sequences, heads, size, width), strides)
    return held
