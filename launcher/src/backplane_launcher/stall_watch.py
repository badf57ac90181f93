"""Whether a worker that serves is hung, from its heartbeats; time is passed in."""


class StallWatch:
    """One worker process after it came up.

    Hung is: no heartbeat for `timeout_s`, or busy for `timeout_s` without one step.
    """

    def __init__(self, timeout_s: float, now: float) -> None:
        self._timeout_s = timeout_s
        self._heard = now
        self._progressed = now
        self._num_steps = -1

    def beat(self, num_steps: int, *, busy: bool, now: float) -> None:
        """A heartbeat came."""
        self._heard = now
        if num_steps != self._num_steps or not busy:
            self._num_steps = num_steps
            self._progressed = now

    def forgive(self, now: float) -> None:
        """The watcher itself stood still (a suspended machine), so what it missed is no sign."""
        self._heard = now
        self._progressed = now

    def verdict(self, now: float) -> str | None:
        """Why the worker counts as hung; None while it does not."""
        if now - self._heard > self._timeout_s:
            return f"hung: no heartbeat for {self._timeout_s:g} s"
        if now - self._progressed > self._timeout_s:
            return f"hung: busy for {self._timeout_s:g} s without completing a step"
        return None
