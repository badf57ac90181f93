"""`Int8Linear`: a linear layer in 8-bit integers, weights and activations (W8A8).

A weight has a scale per output, a token's activations one per token: neither depends on the batch.
"""

import torch
from torch import nn

from backplane_torch.engine.devices.int8_products import fastest_product
from backplane_torch.engine.devices.int8_rows import LARGEST, SMALLEST_SCALE, Int8Rows


class QuantizedInput:
    """A tensor's 8-bit form, kept for the layers that are given the same tensor one by one."""

    def __init__(self, rows: Int8Rows) -> None:
        self.rows = rows
        self._source: torch.Tensor | None = None
        self._values = self._scales = torch.empty(0)

    def of(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Int8Rows.quantize`.

        The source must not be written to between layers that share this.
        """
        if source is not self._source:
            self._values, self._scales = self.rows.quantize(source)
            self._source = source
        return self._values, self._scales


class Int8Linear(nn.Module):
    """Computes in integers, and gives what the input's dtype can hold.

    Attributes:
        weight: [in, out], opaque: it has a shape and a dtype, but only what multiplies reads it.
        bias: [out], as the layer had it.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, shared: QuantizedInput
    ) -> None:
        """Quantize a weight.

        Args:
            weight: [out, in]; not kept.
            bias: [out].
            shared: with the layers that may be given the same input.
        """
        super().__init__()
        scales = weight.abs().amax(1, keepdim=True).float().div_(LARGEST).clamp_(min=SMALLEST_SCALE)
        # Strides are lost on what packs it.
        steps = (weight / scales).round_().to(torch.int8).contiguous()
        added = None if bias is None else bias.float().contiguous()
        self._product = fastest_product(steps, scales.flatten(), added, shared.rows)
        self.weight = self._product.weight
        self.bias = bias
        self._shared = shared

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 -- as `nn.Linear` names it
        """[…, in] → […, out]."""
        return self._product(*self._shared.of(input), input.dtype)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"{self.weight.shape[0]} → {self.weight.shape[1]}"


def computes_int8() -> bool:
    """Whether this CPU has instructions for it; without, it would be slower than the model is."""
    return torch.backends.mkldnn.is_available() and (
        torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 -- torch has no public question for it
    )
