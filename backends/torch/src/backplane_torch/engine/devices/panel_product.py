"""`PanelProduct`: rows times a weight by `native/product.c`, in 8-bit integers or in bfloat16.

It reads a weight once, about as fast as memory gives it: for a few rows 1.4 to 2 times as fast as
oneDNN, and as fast for many.
"""

import ctypes
from typing import Final

import torch

# How a weight lies.
_PANEL: Final = 32
_CELL_BYTES: Final = 4
# So that a thread which was interrupted leaves the rest of its share to others.
_TASKS_PER_THREAD: Final = 4
_KINDS: Final = {torch.int8: "int8", torch.bfloat16: "bfloat16"}


class _Product(ctypes.Structure):
    """`Product` of `product.c`, which tells more."""

    _fields_ = (
        ("num_rows", ctypes.c_int64),
        ("num_cells", ctypes.c_int64),
        ("num_outputs", ctypes.c_int64),
        ("panels_per_task", ctypes.c_int64),
        ("rows", ctypes.c_void_p),
        ("row_scales", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("bfloat16", ctypes.c_int64),
        ("output", ctypes.c_void_p),
    )


class PanelProduct:
    """One caller at a time.

    Attributes:
        weight: of the size it was given in, opaque.
    """

    def __init__(
        self,
        kernels: ctypes.CDLL,
        weight: torch.Tensor,
        *,
        bias: torch.Tensor | None,
        scales: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> None:
        """Lay a weight out.

        Args:
            kernels: the compiled library.
            weight: [out, in], that `multiplies` says yes to; not kept.
            bias: [out] in float32, contiguous.
            scales: of int8, what a step of each output is: [out] in float32, contiguous.
            offsets: of int8, what sums begin at: [out] in int32, contiguous.
        """
        num_outputs, width = weight.shape
        per_cell = _CELL_BYTES // weight.itemsize
        panels = weight.reshape(num_outputs // _PANEL, _PANEL, width // per_cell, per_cell)
        self.weight: Final = panels.transpose(1, 2).contiguous().view(num_outputs, width)
        self._multiply: Final = getattr(kernels, f"bp_multiply_{_KINDS[weight.dtype]}")
        self._multiply.argtypes, self._multiply.restype = (ctypes.c_void_p,), None
        self._num_outputs: Final = num_outputs
        self._width: Final = width
        self._kept: Final = scales, offsets, bias  # for their memory
        self._product: Final = _Product(
            num_cells=width // per_cell,
            num_outputs=num_outputs,
            panels_per_task=-(-len(panels) // (_TASKS_PER_THREAD * torch.get_num_threads())),
            weight=self.weight.data_ptr(),
            offsets=_address(offsets),
            scales=_address(scales),
            bias=_address(bias),
        )
        self._address: Final = ctypes.addressof(self._product)

    def __call__(
        self, rows: torch.Tensor, row_scales: torch.Tensor | None, dtype: torch.dtype
    ) -> torch.Tensor:
        """[…, in] → […, out].

        Args:
            rows: contiguous; of int8 weights unsigned values around 128, else bfloat16.
            row_scales: of such values, what a step of each row is, in float32.
            dtype: of the result, float32 or bfloat16.
        """
        output = torch.empty((*rows.shape[:-1], self._num_outputs), dtype=dtype)
        product = self._product
        product.num_rows = rows.numel() // self._width
        product.rows, product.row_scales = rows.data_ptr(), _address(row_scales)
        product.bfloat16, product.output = dtype is torch.bfloat16, output.data_ptr()
        self._multiply(self._address)
        return output


def multiplies(kernels: ctypes.CDLL, weight: torch.Tensor) -> bool:
    """Whether it can, and is the faster: not where oneDNN has AMX."""
    num_outputs, width = weight.shape
    kind = _KINDS.get(weight.dtype)
    return (
        kind is not None
        and num_outputs % _PANEL == 0
        and width > 0
        and width * weight.itemsize % _CELL_BYTES == 0
        and bool(getattr(kernels, f"bp_multiplies_{kind}")())
        and not torch.cpu._is_amx_tile_supported()  # noqa: SLF001 -- torch has no public question for it
    )


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
