"""Server-sent events as a raw ASGI answer: keep-alives, write timeout, departed clients.

Frames come ready to send; what they say is the dialects' business.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from litestar.types import Receive, Scope, Send

from backplane_server.web.disconnect import wait_for_disconnect
from backplane_server.web.responses import encode_headers

_log = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 15.0
KEEP_ALIVE: Final = b":\n\n"
DONE: Final = b"data: [DONE]\n\n"

STREAM_HEADERS: Final = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


def frame(data: bytes) -> bytes:
    """One event. `data` is JSON on one line."""
    return b"data: " + data + b"\n\n"


class EventStream:
    """Sends frames as they come; closes `frames` in every case.

    Args:
        frames: an asynchronous generator of bytes; its clean-up runs when the client leaves.
        headers: beside those that every stream has.
        write_timeout_s: how long one write may wait for the client before it is cut.
        on_close: runs once at the end, whatever the end.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str],
        write_timeout_s: float,
        on_close: Callable[[], None],
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._frames = frames
        self._headers = {**STREAM_HEADERS, **headers}
        self._write_timeout_s = write_timeout_s
        self._on_close = on_close
        self._keep_alive_s = keep_alive_s
        self._last_write = 0.0
        self._lock = asyncio.Lock()
        self._departed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI has it
        """Send everything, or stop when the client leaves or stops reading."""
        tasks = {
            asyncio.create_task(self._pump(send)),
            asyncio.create_task(self._watch(receive)),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._frames.aclose()
            self._on_close()

    async def _pump(self, send: Send) -> None:
        headers = encode_headers(self._headers)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._last_write = time.monotonic()
        keep_alive = asyncio.create_task(self._keep_alive(send))
        try:
            async for data in self._frames:
                await self._write(send, data, more=True)
                # What is sent after a client left is dropped without a word: a stream that goes
                # on to its end then would be taken for one that arrived.
                if self._departed:
                    return
            await self._write(send, b"", more=False)
        except TimeoutError:
            _log.warning("a client read nothing for %g s and was cut", self._write_timeout_s)
        finally:
            keep_alive.cancel()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await keep_alive

    async def _watch(self, receive: Receive) -> None:
        await wait_for_disconnect(receive)
        self._departed = True

    async def _write(self, send: Send, data: bytes, *, more: bool) -> None:
        async with self._lock, asyncio.timeout(self._write_timeout_s):
            await send({"type": "http.response.body", "body": data, "more_body": more})
        self._last_write = time.monotonic()

    async def _keep_alive(self, send: Send) -> None:
        while True:
            idle = time.monotonic() - self._last_write
            if idle < self._keep_alive_s:
                await asyncio.sleep(self._keep_alive_s - idle)
            else:
                await self._write(send, KEEP_ALIVE, more=True)
