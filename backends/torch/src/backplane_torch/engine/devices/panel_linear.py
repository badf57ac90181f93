"""`PanelLinear`: a linear layer in bfloat16 by our own product."""

import ctypes

import torch
from torch import nn

from backplane_torch.engine.devices.panel_product import PanelProduct


class PanelLinear(nn.Module):
    """Sums in float32, rounded once.

    Attributes:
        weight: [out, in], opaque: it has a shape and a dtype, but only the product reads it.
    """

    def __init__(
        self, kernels: ctypes.CDLL, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> None:
        """Lay a weight out.

        Args:
            kernels: the compiled library.
            weight: [out, in], that `multiplies` says yes to; not kept.
            bias: [out].
        """
        super().__init__()
        self._product = PanelProduct(
            kernels, weight, bias=None if bias is None else bias.float().contiguous()
        )
        # No parameters: what copies or casts parameters cannot read the opaque one.
        self.weight: torch.Tensor = self._product.weight

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 -- as `nn.Linear` names it
        """[…, in] → […, out].

        Raises:
            ValueError: an input of another dtype or width, which the product would misread.
        """
        if input.dtype is not self.weight.dtype or input.shape[-1] != self.weight.shape[1]:
            raise ValueError(
                f"an input of {input.dtype} and width {input.shape[-1]} for a weight of "
                f"{self.weight.dtype} and width {self.weight.shape[1]}"
            )
        return self._product(input.contiguous(), None, input.dtype)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"{self.weight.shape[1]} → {self.weight.shape[0]}, in panels"
