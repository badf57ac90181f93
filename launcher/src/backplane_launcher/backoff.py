"""How long to wait before a process that ended is started again."""

from typing import Final

FIRST_S: Final = 0.5
LONGEST_S: Final = 30.0
HEALTHY_S: Final = 60.0


class Backoff:
    """Doubles with every failure; a healthy stretch of `HEALTHY_S` seconds starts anew."""

    def __init__(self) -> None:
        self.num_failures = 0

    def after_failure(self, healthy_s: float) -> float:
        """The pause in seconds, given how long the process had been healthy."""
        if healthy_s >= HEALTHY_S:
            self.num_failures = 0
        pause_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self.num_failures, 16))
        self.num_failures += 1
        return pause_s
