"""How many requests may be on their way to a worker at a time, and how much they may hold.

The way is from a body that was read to the worker's acceptance, or to an answer without one:
templates, grammars and tokens are made on it, and each of them can be waited for.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
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

    @contextlib.contextmanager
    def starting(self, num_bytes: int) -> Generator[None, None, None]:
        """While a request with a body of that size is on its way.

        Raises:
            OverloadedError: too much is.
        """
        full = self._num_requests >= self._max_requests
        if full or self._num_bytes + num_bytes > self._max_bytes:
            raise OverloadedError(
                "too many requests wait to be taken", retry_after_s=_RETRY_AFTER_S
            )
        self._num_requests += 1
        self._num_bytes += num_bytes
        try:
            yield
        finally:
            self._num_requests -= 1
            self._num_bytes -= num_bytes

    @contextlib.asynccontextmanager
    async def turn(self, num_bytes: int) -> AsyncGenerator[None, None]:
        """A large body's turn to be made sense of; what others wait for goes on between two."""
        if num_bytes <= _LARGE_BODY_BYTES:
            yield
            return
        async with self._turn:
            await asyncio.sleep(0)  # the turn lasts until the loop has seen to everybody else
            yield
