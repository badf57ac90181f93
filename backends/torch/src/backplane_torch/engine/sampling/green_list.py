"""`GreenList`: `backplane_core.watermark` for a whole vocabulary and many sequences at once."""

from typing import Final

import torch
from backplane_core import watermark
from backplane_core.sampling import Watermark

# Four bytes each: so many at a time stay in a processor's cache.
_NUM_AT_ONCE: Final = 1 << 18
_SIGN: Final = 1 << 31


class GreenList:
    """Which tokens come after which.

    Numbers of 32 bits are int32's here: products and sums that overflow keep their low bits.
    """

    def __init__(self, num_tokens: int, device: torch.device) -> None:
        self._mixed = _mix32(torch.arange(num_tokens, dtype=torch.int32, device=device))

    def bonuses(self, previous: list[int], marks: list[Watermark]) -> torch.Tensor:
        """What each row's mark adds after its token before: [rows, vocabulary], float32."""
        figures = [
            [_signed(watermark.key_of(token_id)), watermark.threshold(mark.gamma) - _SIGN]
            for token_id, mark in zip(previous, marks, strict=True)
        ]
        device = self._mixed.device
        table = torch.tensor(figures, dtype=torch.int32).to(device, non_blocking=True)
        deltas = torch.tensor([[mark.delta] for mark in marks]).to(device, non_blocking=True)
        size = max(1, _NUM_AT_ONCE // len(self._mixed))
        # Beyond 2**31 a number is negative: half the range on, order is that of unsigned ones.
        greens = [
            _mix32(self._mixed ^ part[:, :1]).sub_(_SIGN) < part[:, 1:]
            for part in table.split(size)
        ]
        return torch.cat(greens) * deltas


def _mix32(values: torch.Tensor) -> torch.Tensor:
    """`watermark.mix32` of each, in place."""
    first, second, third = watermark.SHIFTS
    _xor_shifted(values, first).mul_(_signed(watermark.MULTIPLIERS[0]))
    _xor_shifted(values, second).mul_(_signed(watermark.MULTIPLIERS[1]))
    return _xor_shifted(values, third)


def _xor_shifted(values: torch.Tensor, shift: int) -> torch.Tensor:
    """`values ^= values >> shift`, zeros coming in from above."""
    values ^= (values >> shift).bitwise_and_((1 << (32 - shift)) - 1)
    return values


def _signed(number: int) -> int:
    """The int32 of a number's 32 bits."""
    return number - (number & _SIGN) * 2
