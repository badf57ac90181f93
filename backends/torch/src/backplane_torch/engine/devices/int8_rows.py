"""Rows in 8-bit integers: activations before a product of integers, and what becomes of it.

Compiled, or by torch's own operations where that is not there; both give the same, but in
float32 with a bias, where the last place may differ.
"""

import ctypes
from abc import ABC, abstractmethod
from typing import Final

import torch

from backplane_torch.engine.devices.native import library

# oneDNN multiplies unsigned activations by signed weights; for signed ones it falls to a reference
# loop, 200 times slower. This is zero among the unsigned.
ZERO: Final = 128
LARGEST: Final = 127
# Of a row that holds zeros alone; whatever it is, they stay zeros.
SMALLEST_SCALE: Final = 1e-30

# The types of which rows may be, and how C is told.
_IS_BFLOAT16: Final = {torch.float32: 0, torch.bfloat16: 1}


class Int8Rows(ABC):
    """What a row becomes depends on nothing but the row."""

    @abstractmethod
    def quantize(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[…, width] → unsigned values around `ZERO`, and what a step of each row is, in float32.

        A row that holds infinities or what is no number has such a scale, and any values.
        """

    @abstractmethod
    def finish(
        self,
        product: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """A product of such rows, times their scales, with the bias, rounded once.

        Args:
            product: […, width], contiguous, in float32; lost.
            scales: of the rows, as `quantize` gave them.
            bias: [width], contiguous, in float32.
            dtype: of the result; the source's.
        """


class TorchRows(Int8Rows):
    """By torch's own operations."""

    def quantize(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """In six operations."""
        scales = source.abs().amax(-1, keepdim=True).float().div_(LARGEST)
        scales.clamp_(min=SMALLEST_SCALE)
        steps = torch.mul(source, scales.reciprocal())
        return steps.round_().add_(ZERO).to(torch.uint8), scales

    def finish(
        self,
        product: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """In two or three operations."""
        product.mul_(scales)
        if bias is not None:
            product.add_(bias)
        return product.to(dtype)


class CompiledRows(Int8Rows):
    """By `native/int8_rows.c`.

    Attributes:
        kernels: the library it is in.
    """

    def __init__(self, kernels: ctypes.CDLL) -> None:
        self.kernels: Final = kernels
        size, address = ctypes.c_int64, ctypes.c_void_p
        self._quantize = kernels.bp_quantize_rows
        self._quantize.argtypes = (size, size, ctypes.c_int, *[address] * 3)
        self._quantize.restype = None
        self._finish = kernels.bp_finish_rows
        self._finish.argtypes = (size, size, ctypes.c_int, *[address] * 4)
        self._finish.restype = None

    def quantize(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass for the highest of a row, one for its values."""
        source = source.contiguous()
        values = torch.empty(source.shape, dtype=torch.uint8)
        scales = torch.empty((*source.shape[:-1], 1), dtype=torch.float32)
        self._quantize(
            *(scales.numel(), source.shape[-1], _IS_BFLOAT16[source.dtype]),
            *(source.data_ptr(), values.data_ptr(), scales.data_ptr()),
        )
        return values, scales

    def finish(
        self,
        product: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """One pass."""
        output = product if dtype is torch.float32 else torch.empty(product.shape, dtype=dtype)
        self._finish(
            *(scales.numel(), product.shape[-1], _IS_BFLOAT16[dtype]),
            *(product.data_ptr(), scales.data_ptr()),
            *(None if bias is None else bias.data_ptr(), output.data_ptr()),
        )
        return output


def fastest_rows() -> Int8Rows:
    """The compiled ones, where they are there."""
    kernels = library.load()
    return TorchRows() if kernels is None else CompiledRows(kernels)
