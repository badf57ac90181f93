"""Stops work for a client that has gone away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from litestar.types import Receive, Scope

from backplane_server.errors import ClientDisconnectedError
from backplane_server.web.client_link import ClientLink, LinkWatcher, link_of

ResultT = TypeVar("ResultT")


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client is gone. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_disconnect(
    scope: Scope, receive: Receive, work: Coroutine[Any, Any, ResultT]
) -> ResultT:
    """Run `work`, but cancel it at once if the client leaves.

    Raises:
        ClientDisconnectedError: the client left; `work` has been cancelled and has ended.
    """
    if (link := link_of(scope)) is not None:
        return await _while_linked(link, work)
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
    raise _left()


async def _while_linked(link: ClientLink, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The same without a task for either: the protocol tells when the client leaves."""
    if link.lost:
        work.close()
        raise _left()
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a request is answered in a task")
    canceller = _Canceller(task)
    link.watch(canceller)
    try:
        return await work
    except asyncio.CancelledError:
        if canceller.has_cancelled and not task.uncancel():
            raise _left() from None
        raise
    finally:
        link.unwatch(canceller)


class _Canceller(LinkWatcher):
    """Cancels a task when its client leaves."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.has_cancelled = False

    def lost(self) -> None:
        self.has_cancelled = True
        self._task.cancel()


def _left() -> ClientDisconnectedError:
    return ClientDisconnectedError("the client left before the answer was complete")
