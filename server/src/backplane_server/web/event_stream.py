"""Server-sent events as a raw ASGI answer: keep-alives, slow and departed clients, the end.

Frames come ready to send; what they say is the dialects' business.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from litestar.types import Receive, Scope, Send

from backplane_server.web.outlet import Outlet, open_outlet
from backplane_server.web.responses import encode_headers

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


Write = Callable[[bytes], None]
End = Callable[[Exception | None], None]


class FrameSource(Protocol):
    """Makes a stream's frames. Pushes: no task is woken for a frame."""

    def start(self, write: Write, end: End) -> None:
        """Make frames from now on.

        Args:
            write: takes some, at least one.
            end: told once that there are no more but the last ones; why, where that is an error.
        """
        ...

    def hold(self) -> None:
        """Make none until `resume`."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...

    def last_frames(self, error: Exception | None) -> bytes:
        """What ends the stream, made in the request's own task; may be nothing."""
        ...

    def close(self) -> None:
        """The stream is over, whatever the end. Called once."""
        ...


class EventStream:
    """Sends a source's frames; closes the source in every case.

    Args:
        source: what is sent. It is held while the client is slow.
        headers: beside those that every stream has.
        write_timeout_s: how long the client may take nothing before it is cut.
        keep_alive_s: after so much silence a comment is sent.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        headers: Mapping[str, str],
        write_timeout_s: float,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._source = source
        self._headers = {**STREAM_HEADERS, **headers}
        self._write_timeout_s = write_timeout_s
        self._keep_alive_s = keep_alive_s
        self._outlet: Outlet
        self._over: asyncio.Future[None]
        self._gone = False
        self._error: Exception | None = None
        self._held = False
        self._keep_alive: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop when the client leaves or stops reading."""
        self._over = asyncio.get_running_loop().create_future()
        self._outlet = open_outlet(
            scope, receive, send, self, write_timeout_s=self._write_timeout_s
        )
        try:
            headers = encode_headers(self._headers)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._outlet.begin()
            if not self._gone:
                self._fill_silence()
                self._source.start(self._outlet.write, self._end)
                if self._held:
                    self._source.hold()
            await self._over
            if not self._gone:
                await self._outlet.finish(self._source.last_frames(self._error))
        finally:
            self._stop()
            self._outlet.close()
            self._source.close()
            # They know the stream, too: it would be found to be garbage much later.
            del self._outlet, self._source

    def _end(self, error: Exception | None) -> None:
        """The last frames follow, from the request's own task."""
        self._error = error
        self._stop()

    # ── the client's news ────────────────────────────────────────────────────────────────

    def hold(self) -> None:
        """It is slow: what it has not taken waits where it is smallest."""
        self._held = True
        self._source.hold()

    def resume(self) -> None:
        """It has caught up."""
        self._held = False
        if not self._over.done():
            self._source.resume()

    def gone(self) -> None:
        """A stream that went on to its end now would be taken for one that arrived."""
        self._gone = True
        if not self._over.done():
            self._source.hold()
        self._stop()

    def _stop(self) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        if not self._over.done():
            self._over.set_result(None)

    def _fill_silence(self) -> None:
        """Send a comment once there was silence for long enough, again and again."""
        silent_s = time.monotonic() - self._outlet.last_write
        if silent_s >= self._keep_alive_s:
            silent_s = 0.0
            if not self._held:
                self._outlet.write(KEEP_ALIVE)
        loop = asyncio.get_running_loop()
        self._keep_alive = loop.call_later(self._keep_alive_s - silent_s, self._fill_silence)
