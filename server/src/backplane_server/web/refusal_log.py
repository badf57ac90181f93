"""Tells the operator of requests without a right key: one line a minute for each route.

A probe or a scrape that lacks the key fails for ever, and only this says so.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

EVERY_S: Final = 60.0
_PROBE: Final = "; probes use /health/live and /health/ready, which need no key"
# What the machines that ask these would need, since they are configured, not typed.
_REMEDIES: Final = {
    "/health": _PROBE,
    "/ping": f"{_PROBE}, or start with --open-routes ping",
    "/metrics": "; give Prometheus the key, or start with --open-routes metrics",
}


class RefusalLog:
    """Counts refusals by their declared route, whose number bounds what is kept.

    Args:
        clock: seconds, of any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def note(self, method: str, route: str, problem: str) -> None:
        """Log a refusal, or count it for the route's next line.

        Args:
            method: of the request.
            route: as it was declared, "-" where there is none such.
            problem: what was wrong; never the key.
        """
        now = self._clock()
        last = self._told.get(route)
        if last is not None and now - last < EVERY_S:
            self._untold[route] = self._untold.get(route, 0) + 1
            return
        self._told[route] = now
        more = self._untold.pop(route, 0)
        _log.warning(
            "401 for %s %s: %s%s%s",
            method,
            route,
            problem,
            f" ({more} more since the last such line)" if more else "",
            _REMEDIES.get(route, ""),
        )
