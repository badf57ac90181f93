"""Stops work for a client that has gone away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from litestar.types import Receive

from backplane_server.errors import ClientDisconnectedError

ResultT = TypeVar("ResultT")


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client is gone. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run `work`, but cancel it at once if the client leaves.

    Raises:
        ClientDisconnectedError: the client left; `work` has been cancelled and has ended.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(wait_for_disconnect(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        for other in (task, watch):
            if not other.done():
                other.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)
    raise ClientDisconnectedError("the client left before the answer was complete")
