"""What a layer of a transformers cache holds, sequence by sequence: copied, joined, put back.

Knows transformers' kinds of layers and nothing of models.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicSlidingWindowLayer

from backplane_torch.engine.cached.growing_layer import ROOM, GrowingLayer


@dataclasses.dataclass
class EncodedPrompts:
    """What an encoder made of prompts, kept as a layer beside those of the cache.

    Attributes:
        hidden_states: [sequences, prompt tokens, width].
    """

    hidden_states: torch.Tensor


Layer = Any  # transformers' layers have no base in common, neither class nor protocol


class Row(NamedTuple):
    """One sequence's part of a layer: where in its batch that is."""

    layer: Layer
    at: int


class _Place(NamedTuple):
    """Where a layer keeps a tensor: an attribute or, with a number, an entry of one."""

    attribute: str
    number: int | None


# Tensors, [sequences, …]; those of _STATES are dicts of them, written in place from token to token.
_TOKENS = ("keys", "values", "hidden_states")
_STATES = ("conv_states", "recurrent_states")


def cache_of(layers: list[Layer]) -> DynamicCache:
    """These layers as models take them, some of which ask for this class."""
    cache = DynamicCache()
    cache.layers = layers
    return cache


def tensors_of(layer: Layer) -> dict[_Place, torch.Tensor]:
    """All it holds of sequences."""
    found = {_Place(name, None): getattr(layer, name, None) for name in _TOKENS}
    for name in _STATES:
        states: dict[int, torch.Tensor | None] = getattr(layer, name, {})
        found.update((_Place(name, number), state) for number, state in states.items())
    return {place: tensor for place, tensor in found.items() if tensor is not None}


def has_states(layer: Layer) -> bool:
    """Whether it keeps something of a fixed size that tokens change, however many there were."""
    return any(place.number is not None for place in tensors_of(layer))


def recurrent_states(layer: Layer) -> list[torch.Tensor]:
    """Its summaries of all tokens so far, without what convolutions see of the last ones."""
    places = tensors_of(layer).items()
    return [tensor for place, tensor in places if place.attribute == "recurrent_states"]


def bytes_per_token(layers: Iterable[Layer]) -> float:
    """Of one sequence, what grows with each token. Windows count as if they grew on."""
    return sum(
        tensor.nbytes / (tensor.shape[0] * tensor.shape[-2]) * (1 + _room(layer))
        for layer in layers
        for place, tensor in tensors_of(layer).items()
        if place.number is None
    )


def bytes_per_sequence(layers: Iterable[Layer]) -> int:
    """Of one sequence, what is of a fixed size."""
    return sum(
        tensor.nbytes // tensor.shape[0]
        for layer in layers
        for place, tensor in tensors_of(layer).items()
        if place.number is not None
    )


def unknown_tensors(layer: Layer) -> list[str]:
    """Attributes with tensors of sequences that nothing here knows, so that they would get lost."""
    return [
        name
        for name, value in vars(layer).items()
        if name not in _TOKENS + _STATES and any(tensor.dim() for tensor in _tensors_in(value))
    ]


def gather(rows: list[Row], num_tokens: int | None = None) -> Layer:
    """A layer with copies of these rows, in this order.

    Args:
        rows: equally long ones, of layers of one kind.
        num_tokens: keep the first so many of each only; None keeps all.
    """
    gathered = copy.copy(rows[0].layer)
    sources = {id(row.layer): tensors_of(row.layer) for row in rows}
    for place in tensors_of(gathered):
        parts = [sources[id(row.layer)][place][row.at : row.at + 1] for row in rows]
        if num_tokens is not None:
            parts = [part[..., :num_tokens, :] for part in parts]
        _put(gathered, place, torch.cat(parts))
    return gathered


def remember(layer: Layer) -> Callable[[], None]:
    """What puts a layer back as it is now, after a forward pass that went on or broke off."""
    attributes = vars(layer).copy()
    states = {
        place: tensor.clone()
        for place, tensor in tensors_of(layer).items()
        if place.number is not None
    }
    length = None
    if isinstance(layer, CacheLayerMixin) and not isinstance(layer, DynamicSlidingWindowLayer):
        # All of it stays there and is added to: to hold on to it would take its memory twice.
        length = layer.get_seq_length()
        del attributes["keys"], attributes["values"]

    def put_back() -> None:
        vars(layer).update(attributes)
        for place, tensor in states.items():
            _put(layer, place, tensor)
        if length is not None:
            for name in ("keys", "values"):
                setattr(layer, name, getattr(layer, name)[..., :length, :])

    return put_back


def _room(layer: Layer) -> float:
    return ROOM if isinstance(layer, GrowingLayer) else 0.0


def _put(layer: Layer, place: _Place, tensor: torch.Tensor) -> None:
    value = tensor
    if place.number is not None:
        # A dict of its own: copies of a layer share those of the layer.
        value = getattr(layer, place.attribute) | {place.number: tensor}
    setattr(layer, place.attribute, value)


def _tensors_in(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _tensors_in(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors_in(entry)
