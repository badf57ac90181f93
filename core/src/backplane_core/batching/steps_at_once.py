"""`StepsAtOnce`: how many steps an executor takes in a row, without the scheduler's word.

What lies between two steps (scheduling, handing out tokens, telling the server) costs the more of a
step, the shorter it is. Knows nothing of memory.
"""

from collections.abc import Iterable

from backplane_core.batching.sequence import Sequence


class StepsAtOnce:
    """Up to `max_steps`, as many as fill `target_s` seconds at the speed of the last ones."""

    def __init__(self, max_steps: int, target_s: float) -> None:
        self._max_steps = max_steps
        self._target_s = target_s
        self._wanted = 1

    def took(self, step_s: float) -> None:
        """A step of decodes alone took so long."""
        if step_s * self._max_steps < self._target_s:
            self._wanted = self._max_steps
        else:
            self._wanted = max(1, round(self._target_s / step_s)) if step_s else 1

    def number(self, decodes: Iterable[Sequence]) -> int:
        """For these, of which none goes past its last token."""
        if self._wanted == 1:
            return 1
        left = min(sequence.max_tokens - len(sequence.token_ids) for sequence in decodes)
        return max(1, min(self._wanted, left))
