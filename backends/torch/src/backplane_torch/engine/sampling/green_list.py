"""`GreenList`: `backplane_core.watermark` for a whole vocabulary and many sequences at once."""

from typing import Final

import torch
from backplane_core import watermark
from backplane_core.sampling import Watermark

_MASK: Final = 0xFFFFFFFF
# So many numbers at a time: eight bytes each, they stay in a processor's cache.
_NUM_AT_ONCE: Final = 1 << 17


class GreenList:
    """Which tokens come after which."""

    def __init__(self, num_tokens: int, device: torch.device) -> None:
        self._mixed = _mix32(torch.arange(num_tokens, device=device))

    def bonuses(self, previous: list[int], marks: list[Watermark]) -> torch.Tensor:
        """What each row's mark adds after its token before: [rows, vocabulary], float32."""
        figures = [
            [watermark.key_of(token_id), watermark.threshold(mark.gamma)]
            for token_id, mark in zip(previous, marks, strict=True)
        ]
        device = self._mixed.device
        table = torch.tensor(figures).to(device, non_blocking=True)
        deltas = torch.tensor([[mark.delta] for mark in marks]).to(device, non_blocking=True)
        size = max(1, _NUM_AT_ONCE // len(self._mixed))
        greens = [_mix32(self._mixed ^ part[:, :1]) < part[:, 1:] for part in table.split(size)]
        return torch.cat(greens) * deltas


def _mix32(values: torch.Tensor) -> torch.Tensor:
    """`watermark.mix32` of each, in 64 bits: a product that overflows them keeps its low 32."""
    first, second, third = watermark.SHIFTS
    values ^= values >> first
    values = values.mul_(watermark.MULTIPLIERS[0]).bitwise_and_(_MASK)
    values ^= values >> second
    values = values.mul_(watermark.MULTIPLIERS[1]).bitwise_and_(_MASK)
    values ^= values >> third
    return values
