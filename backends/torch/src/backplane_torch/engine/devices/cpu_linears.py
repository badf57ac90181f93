"""Replaces a model's linear layers, one by one, by those that this CPU computes fastest."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import torch
from backplane_core.errors import BackendError
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from backplane_torch.engine.devices.int8_linear import Int8Linear, QuantizedInput
from backplane_torch.engine.devices.int8_rows import fastest_rows
from backplane_torch.engine.devices.linear_room import second_copies
from backplane_torch.engine.devices.native import library
from backplane_torch.engine.devices.packed_linear import PackedLinear, packs
from backplane_torch.engine.devices.panel_linear import PanelLinear
from backplane_torch.engine.devices.panel_product import multiplies

INT8: Final = "int8"
# Of a smaller weight, a single row is computed as fast packed.
_PLAIN_NUMBERS: Final = 2**20
# Smaller ones (an expert router) win nothing in 8 bits, and may decide by small differences.
_INT8_NUMBERS: Final = 2**14
# State-space layers take this one's weight and multiply by it themselves.
_NOT_CALLED: Final = frozenset({"dt_proj"})


@dataclasses.dataclass
class _Place:
    """A linear layer: [out, in] its weight, and where it hangs."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    owners: list[tuple[nn.Module, str]]
    shared: bool
    is_head: bool

    @property
    def num_bytes(self) -> int:
        return self.weight.numel() * self.weight.itemsize

    @property
    def in_panels(self) -> bool:
        """Whether our own product is the fastest for it, in the model's dtype."""
        kernels = library.load()
        return (
            kernels is not None
            and self.weight.dtype is torch.bfloat16
            and multiplies(kernels, self.weight)
        )

    @property
    def plain_pays(self) -> bool:
        """A single row is faster with the plain weight than packed; a transposed one is none."""
        return (
            self.weight.dtype is torch.bfloat16
            and not self.in_panels
            and self.weight.numel() >= _PLAIN_NUMBERS
            and self.weight.is_contiguous()
        )

    def layer(self, quantized: QuantizedInput | None, *, twice: bool) -> nn.Module | None:
        """What replaces it; None leaves it.

        Args:
            quantized: with 8 bits, its input's.
            twice: there is room for a second copy.
        """
        if quantized is not None:
            return Int8Linear(self.weight, self.bias, quantized)
        if self.shared and not twice:
            return None
        kernels = library.load()
        if kernels is not None and self.in_panels:
            return PanelLinear(kernels, self.weight, self.bias)
        if packs(self.weight.dtype):
            plain = self.weight if self.plain_pays and twice else None
            return PackedLinear(self.weight, self.bias, plain)
        return None


def replace_linears(
    model: nn.Module,
    quantize: str | None,
    free_bytes: Callable[[], int],
    report: Callable[[float], None],
) -> None:
    """See `TorchDevice.prepare_layers`.

    The head, weights that other layers share and small ones stay in the model's dtype with "int8".

    Raises:
        BackendError: 8-bit integers are asked for beside other types than bfloat16 and float32.
    """
    places = _find(model)
    others = {place.weight.dtype for place in places} - {torch.bfloat16, torch.float32}
    if quantize == INT8 and others:
        raise BackendError(
            f"--quantize int8 computes beside bfloat16 or float32, not {others.pop()}",
            remedy="choose one of these with --dtype",
        )
    total, done = max(1, sum(place.num_bytes for place in places)), 0
    kept = _kept_twice(places, quantize, free_bytes())
    inputs: dict[int, QuantizedInput] = {}
    rows = fastest_rows()
    while places:
        place, twice = places.pop(), kept.pop()
        done += place.num_bytes
        quantized: QuantizedInput | None = None
        if _to_int8(place, quantize):
            quantized = inputs.setdefault(id(place.owners[0][0]), QuantizedInput(rows))
        if (made := place.layer(quantized, twice=twice)) is not None:
            for owner, name in place.owners:
                setattr(owner, name, made)
        # The last reference to the plain one: at most one layer is there twice.
        del place
        report(done / total)


def _kept_twice(places: list[_Place], quantize: str | None, free_bytes: int) -> list[bool]:
    """Which may have a second copy; shared weights first, whose packed form is one.

    A step of one sequence reads the plain copies, all others the packed ones.
    """
    wanted = [
        index
        for index, place in enumerate(places)
        if packs(place.weight.dtype)
        and not _to_int8(place, quantize)
        and (place.shared or place.plain_pays)
    ]
    wanted.sort(key=lambda index: not places[index].shared)
    answers = second_copies([places[index].num_bytes for index in wanted], free_bytes)
    kept = [False] * len(places)
    for index, answer in zip(wanted, answers, strict=True):
        kept[index] = answer
    return kept


def _to_int8(place: _Place, quantize: str | None) -> bool:
    return (
        quantize == INT8
        and not place.is_head
        and not place.shared
        and place.weight.numel() >= _INT8_NUMBERS
    )


def _find(model: nn.Module) -> list[_Place]:
    """All linear layers that are called as such, each once."""
    uses = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    places: dict[int, _Place] = {}
    for owner, name, layer in _children(model):
        # Classes made from it compute something else.
        if type(layer) not in {nn.Linear, Conv1D} or name in _NOT_CALLED:
            continue
        if id(layer) in places:
            places[id(layer)].owners.append((owner, name))
            continue
        weight: torch.Tensor = layer.weight.detach()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue] -- both have one
        bias = layer.bias
        places[id(layer)] = _Place(
            weight=weight.t() if isinstance(layer, Conv1D) else weight,
            bias=bias.detach() if isinstance(bias, torch.Tensor) else None,
            owners=[(owner, name)],
            shared=uses[id(layer.weight)] > 1,
            is_head=layer is head,
        )
    return list(places.values())


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every module with whom it belongs to; one that belongs to several, with each."""
    for owner in model.modules():
        for name, child in owner.named_children():
            yield owner, name, child
