"""Which weights are kept a second time, in another layout, where there is room. Pure arithmetic."""

from collections.abc import Sequence
from typing import Final

# Of what is free beside the weights; the cache is planned from what these leave.
_SHARE: Final = 0.25


def second_copies(sizes: Sequence[int], free_bytes: int) -> list[bool]:
    """Which are to be kept twice: as many as fit, the first ones first.

    Args:
        sizes: bytes of each second copy, those that win the most first.
        free_bytes: memory left after the weights.
    """
    room = int(free_bytes * _SHARE)
    kept: list[bool] = []
    for size in sizes:
        kept.append(size <= room)
        room -= size if kept[-1] else 0
    return kept
