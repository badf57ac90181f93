"""`PackedLinear`: a linear layer whose weight lies as oneDNN reads it, which saves a copy per call.

A plain `nn.Linear` reorders its weight in every call.
"""

from typing import Final

import torch
from torch import nn

# The layout is the best for about so many rows, and good for all others.
_ROWS: Final = 32


class PackedLinear(nn.Module):
    """In the weight's dtype.

    Attributes:
        weight: [out, in], opaque: it has a shape and a dtype, but only oneDNN reads it.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, plain: torch.Tensor | None
    ) -> None:
        """Pack a weight.

        Args:
            weight: [out, in]; not kept.
            bias: [out].
            plain: the same weight, where it is kept for single rows: torch's own product is then
                faster than oneDNN's, which is made for many.
        """
        super().__init__()
        # No parameters: what copies or casts parameters cannot read the opaque one.
        self.weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)  # noqa: SLF001 -- has no public name
        self.bias = bias
        self._plain = plain

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 -- as `nn.Linear` names it
        """[…, in] → […, out]."""
        if self._plain is not None and input.numel() == input.shape[-1]:
            mkldnn = torch.backends.mkldnn
            mkldnn.enabled = False
            try:
                return nn.functional.linear(input, self._plain, self.bias)
            finally:
                mkldnn.enabled = True
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")  # noqa: SLF001 -- has no public name

    def extra_repr(self) -> str:
        """For `print(model)`."""
        single = "" if self._plain is None else ", single rows plain"
        return f"{self.weight.shape[1]} → {self.weight.shape[0]}{single}"


def packs(dtype: torch.dtype) -> bool:
    """Whether this CPU computes packed weights of that type."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 -- has no public name
    return dtype is torch.float32
