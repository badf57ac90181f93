"""`Int8Linear`: a linear layer in 8-bit integers, weights and activations (W8A8).

A weight has a scale per output, a token's activations one per token: neither depends on the batch.
"""

import torch
from torch import nn

# oneDNN multiplies unsigned activations by signed weights; for signed ones it falls to a reference
# loop, 200 times slower. This is zero among the unsigned.
_ZERO = 128
_LARGEST = 127


class QuantizedInput:
    """A tensor's 8-bit form, kept for the layers that are given the same tensor one by one."""

    def __init__(self) -> None:
        self._source: torch.Tensor | None = None
        self._values = self._scales = torch.empty(0)

    def of(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values around `_ZERO`, and what a step of each row is: [..., 1], in the source's dtype.

        The source must not be written to between layers that share this.
        """
        if source is not self._source:
            self._values, self._scales = quantize_rows(source)
            self._source = source
        return self._values, self._scales


class Int8Linear(nn.Module):
    """Computes in integers, and gives what the input's dtype can hold.

    Attributes:
        weight: [in, out], opaque: it has a shape and a dtype, but only oneDNN reads it.
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
        scales = weight.abs().amax(1, keepdim=True).float().div_(_LARGEST).clamp_(min=1e-30)
        # Strides are lost on what packs it.
        steps = (weight / scales).round_().to(torch.int8).contiguous()
        self.weight: torch.Tensor = torch.ops.onednn.qlinear_prepack(steps, None)
        self.bias = bias
        self._scales = scales.flatten()
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._shared = shared

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 -- as `nn.Linear` names it
        """[…, in] → […, out]."""
        values, scales = self._shared.of(input)
        output: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            *(values, 1.0, _ZERO, self.weight, self._scales, self._zeros, None),
            *(1.0, 0, input.dtype, "none", [], ""),
        )
        output.mul_(scales)
        return output if self.bias is None else output.add_(self.bias)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"{self.weight.shape[0]} → {self.weight.shape[1]}"


def quantize_rows(source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unsigned 8-bit values around `_ZERO`, and each row's scale in the source's dtype.

    The scale is rounded to that dtype before it is divided by, so that multiplying by it later
    brings in no error of its own.
    """
    # Without numbers a row is zeros, whatever they are multiplied by.
    scales = source.abs().amax(-1, keepdim=True).div_(_LARGEST).clamp_(min=1e-30)
    # Truncation rounds, half a step above. At most 127.25 steps of bfloat16: none leaves 8 bits.
    steps = torch.mul(source, scales.float().reciprocal())
    return steps.add_(_ZERO + 0.5).to(torch.uint8), scales


def computes_int8() -> bool:
    """Whether this CPU has instructions for it; without, it would be slower than the model is."""
    return torch.backends.mkldnn.is_available() and (
        torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 -- torch has no public question for it
    )
