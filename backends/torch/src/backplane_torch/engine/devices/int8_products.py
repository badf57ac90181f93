"""Rows times a weight in 8-bit integers: by our own product where that can, or by oneDNN's."""

import ctypes
from abc import ABC, abstractmethod

import torch

from backplane_torch.engine.devices.int8_rows import ZERO, CompiledRows, Int8Rows
from backplane_torch.engine.devices.panel_product import PanelProduct, multiplies


class Int8Product(ABC):
    """A weight, and what it is multiplied by.

    Attributes:
        weight: [in, out], opaque.
    """

    weight: torch.Tensor

    @abstractmethod
    def __call__(
        self, values: torch.Tensor, row_scales: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """What `Int8Rows.quantize` gave, […, in] → […, out], in the dtype of its source."""


class OneDnnProduct(Int8Product):
    """Its sums in float32, finished after it."""

    def __init__(
        self,
        steps: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        rows: Int8Rows,
    ) -> None:
        """See `fastest_product`."""
        self.weight = torch.ops.onednn.qlinear_prepack(steps, None)
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._bias = bias
        self._rows = rows

    def __call__(
        self, values: torch.Tensor, row_scales: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """With no sums in bfloat16, which would take longer and be rounded twice."""
        sums: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            *(values, 1.0, ZERO, self.weight, self._scales, self._zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        return self._rows.finish(sums, row_scales, self._bias, dtype)


class CompiledProduct(Int8Product):
    """By our own, which finishes as well."""

    def __init__(
        self,
        steps: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        kernels: ctypes.CDLL,
    ) -> None:
        """See `fastest_product`; `multiplies` has to say yes."""
        offsets = steps.sum(1, dtype=torch.int32).mul_(-ZERO)
        self._product = PanelProduct(kernels, steps, bias=bias, scales=scales, offsets=offsets)
        num_outputs, width = steps.shape
        self.weight = self._product.weight.view(width, num_outputs)

    def __call__(
        self, values: torch.Tensor, row_scales: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """One pass."""
        return self._product(values, row_scales, dtype)


def fastest_product(
    steps: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None, rows: Int8Rows
) -> Int8Product:
    """By the compiled one, where rows are compiled too and it knows the processor and the shape.

    Args:
        steps: [out, in] of int8, contiguous.
        scales: [out] in float32: what a step is.
        bias: [out] in float32, contiguous.
        rows: what quantizes the rows.
    """
    if isinstance(rows, CompiledRows) and multiplies(rows.kernels, steps):
        return CompiledProduct(steps, scales, bias, rows.kernels)
    return OneDnnProduct(steps, scales, bias, rows)
