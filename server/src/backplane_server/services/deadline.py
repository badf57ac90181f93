"""The end of a request's time (`--request-timeout`), whoever is slow."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from backplane_core.errors import DeadlineExceededError


@contextlib.asynccontextmanager
async def deadline(timeout_s: float | None) -> AsyncGenerator[None, None]:
    """Cancel what is awaited in it once so much time has passed; None is never.

    Raises:
        DeadlineExceededError: it has.
    """
    timeout = asyncio.timeout(timeout_s)
    try:
        async with timeout:
            yield
    except TimeoutError:
        if timeout_s is not None and timeout.expired():
            raise overdue(timeout_s) from None
        raise


def overdue(timeout_s: float) -> DeadlineExceededError:
    """What a request is told that took too long."""
    return DeadlineExceededError(
        f"the request was not finished within {timeout_s:g} s",
        remedy="ask for fewer tokens, or raise --request-timeout",
    )
