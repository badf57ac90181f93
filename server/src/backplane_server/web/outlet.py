"""Where a stream's bytes go: to the client's transport at once, or through ASGI's `send`.

Neither waits for a slow client: who writes is told to hold, and the client is cut if it takes
nothing for too long.
"""

import asyncio
import logging
import time
from typing import Final, Protocol

from litestar.types import Receive, Scope, Send

from backplane_server.web.client_link import ClientLink, LinkWatcher, link_of
from backplane_server.web.disconnect import wait_for_disconnect

_log = logging.getLogger(__name__)

# What asyncio's transports take before they say that it is enough.
_HIGH_WATER_BYTES: Final = 64 * 1024


class OutletWatcher(Protocol):
    """Who writes, and is told how the client takes it."""

    def hold(self) -> None:
        """The client is slow: write no more until `resume`."""
        ...

    def resume(self) -> None:
        """It has caught up."""
        ...

    def gone(self) -> None:
        """It left, or was cut."""
        ...


class Outlet(Protocol):
    """The body of one answer, whose header is sent between `open_outlet` and `begin`.

    Attributes:
        last_write: when, by `time.monotonic()`; first, when it began.
    """

    last_write: float

    def begin(self) -> None:
        """Tell the watcher of the client from now on."""
        ...

    def write(self, data: bytes) -> None:
        """Send some; what the client does not take yet is kept."""
        ...

    async def finish(self, data: bytes) -> None:
        """Send the rest and end the answer."""
        ...

    def close(self) -> None:
        """Tell the watcher nothing more. Idempotent."""
        ...


def open_outlet(
    scope: Scope,
    receive: Receive,
    send: Send,
    watcher: OutletWatcher,
    *,
    write_timeout_s: float,
) -> Outlet:
    """The shortest way to a request's client.

    Args:
        scope: the request's.
        receive: likewise.
        send: likewise.
        watcher: told how the client takes what is written.
        write_timeout_s: how long the client may take nothing before it is cut.
    """
    if (link := link_of(scope)) is not None:
        return _DirectOutlet(link, send, watcher, write_timeout_s)
    return _AsgiOutlet(receive, send, watcher, write_timeout_s)


def _tell_cut(write_timeout_s: float) -> None:
    _log.warning("a client read nothing for %g s and was cut", write_timeout_s)


class _DirectOutlet(LinkWatcher):
    """Writes to the transport: no task, no wait, one write a call."""

    def __init__(
        self, link: ClientLink, send: Send, watcher: OutletWatcher, write_timeout_s: float
    ) -> None:
        self._link = link
        self._send = send
        self._watcher = watcher
        self._write_timeout_s = write_timeout_s
        self._stalled: asyncio.TimerHandle | None = None
        self.last_write = 0.0
        self._transport = link.transport
        self._in_chunks = link.open_ended()

    def begin(self) -> None:
        self.last_write = time.monotonic()
        if self._link.lost:
            self._watcher.gone()
            return
        self._link.watch(self)
        if self._link.slow:  # by what came before
            self.pause()

    def write(self, data: bytes) -> None:
        self.last_write = time.monotonic()
        if self._in_chunks:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._transport.write(data)

    async def finish(self, data: bytes) -> None:
        if data:
            self.write(data)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def close(self) -> None:
        self._link.unwatch(self)
        self._forget_stall()

    # ── the transport's news ─────────────────────────────────────────────────────────────

    def pause(self) -> None:
        loop = asyncio.get_running_loop()
        self._stalled = loop.call_later(self._write_timeout_s, self._cut)
        self._watcher.hold()

    def resume(self) -> None:
        self._forget_stall()
        self._watcher.resume()

    def lost(self) -> None:
        self._forget_stall()
        self._watcher.gone()

    def _cut(self) -> None:
        _tell_cut(self._write_timeout_s)
        self._transport.abort()  # `lost` follows

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class _AsgiOutlet:
    """Sends what has gathered while the last `send` took its time."""

    def __init__(
        self, receive: Receive, send: Send, watcher: OutletWatcher, write_timeout_s: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._watcher = watcher
        self._write_timeout_s = write_timeout_s
        self.last_write = 0.0
        self._waiting = bytearray()
        self._news = asyncio.Event()
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self.last_write = time.monotonic()
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._watch())]

    def write(self, data: bytes) -> None:
        self.last_write = time.monotonic()
        was_full = len(self._waiting) > _HIGH_WATER_BYTES
        self._waiting += data
        self._news.set()
        if len(self._waiting) > _HIGH_WATER_BYTES and not was_full:
            self._watcher.hold()

    async def finish(self, data: bytes) -> None:
        self._waiting += data
        self._ending = True
        self._news.set()
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _pump(self) -> None:
        try:
            while self._waiting or not self._ending:
                await self._news.wait()
                self._news.clear()
                data, self._waiting = bytes(self._waiting), bytearray()
                await self._send_in_time(data, more=True)
                if len(data) > _HIGH_WATER_BYTES:
                    self._watcher.resume()
            await self._send_in_time(b"", more=False)
        except TimeoutError:
            _tell_cut(self._write_timeout_s)
        finally:  # after the end it makes no difference
            self._watcher.gone()

    async def _send_in_time(self, data: bytes, *, more: bool) -> None:
        async with asyncio.timeout(self._write_timeout_s):
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _watch(self) -> None:
        await wait_for_disconnect(self._receive)
        self._watcher.gone()
