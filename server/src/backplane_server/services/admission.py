"""How many requests may be on their way to a worker at a time, and how much they may hold.

The way is from a body that was read to the worker's acceptance, or to an answer without one:
templates, grammars and tokens are made on it, and each of them can be waited for.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from backplane_core.control import ServerLaunch
from backplane_core.errors import OverloadedError

# Requests on their way for each that may run: beyond, waiting is in vain.
_STARTING_PER_RUNNING: Final = 2
# What was read of a body takes many times its bytes in memory, so these are counted as well.
_MAX_FULL_BODIES: Final = 16
# Of more than that, one is made sense of at a time: it takes the event loop a moment.
_LARGE_BODY_BYTES: Final = 1 << 16
_RETRY_AFTER_S: Final = 1.0


class Admission:
    """One per server."""

    def __init__(self, settings: ServerLaunch) -> None:
        self._max_requests = _STARTING_PER_RUNNING * settings.max_concurrent_requests
        self._max_bytes = _MAX_FULL_BODIES * settings.payload_limit
        self._num_requests = 0
        self._num_bytes = 0
        self._turn = asyncio.Lock()

    def begin(self, num_bytes: int) -> None:
        """A request with a body of that size is on its way, until `end`.

        Raises:
            OverloadedError: too much is; this one is not.
        """
        full = self._num_requests >= self._max_requests
        if full or self._num_bytes + num_bytes > self._max_bytes:
            raise OverloadedError(
                "too many requests wait to be taken", retry_after_s=_RETRY_AFTER_S
            )
        self._num_requests += 1
        self._num_bytes += num_bytes

    def end(self, num_bytes: int) -> None:
        """It is no longer, whatever came of it."""
        self._num_requests -= 1
        self._num_bytes -= num_bytes

    @staticmethod
    def waits_for_turn(num_bytes: int) -> bool:
        """Whether a body is so large that it is made sense of in a `turn`."""
        return num_bytes > _LARGE_BODY_BYTES

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """A large body's turn to be made sense of; what others wait for goes on between two."""
        async with self._turn:
            await asyncio.sleep(0)  # the turn lasts until the loop has seen to everybody else
            yield
