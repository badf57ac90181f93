"""One HTTP/1.1 connection, kept alive, one exchange at a time. Costs little a piece of body.

Knows nothing of what bodies mean: they go to the exchange as they come, with the time.
"""

import asyncio
from time import perf_counter
from typing import Final, Protocol, cast

import httptools

_SUCCESS: Final = 200


class BodySink(Protocol):
    """Takes an answer as it comes. Times are `time.perf_counter`'s."""

    def head(self, status: int) -> None:
        """The status line and headers are whole."""
        ...

    def body(self, piece: bytes, now: float) -> None:
        """A piece of the body came."""
        ...


class BrokenAnswerError(Exception):
    """What came is no HTTP."""


class CutError(Exception):
    """The peer closed before the answer was whole; `unanswered`: before it began."""

    def __init__(self, *, unanswered: bool) -> None:
        super().__init__("the server closed the connection before the answer was whole")
        self.unanswered = unanswered


class Connection(asyncio.Protocol):
    """Made by `loop.create_connection`. `alive` says whether another exchange may be tried."""

    def __init__(self) -> None:
        self.alive = False
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._sink: BodySink | None = None
        self._done: asyncio.Future[float] | None = None
        self._now = 0.0
        self._began = False
        self._has_length = False
        self._in_body = False

    async def exchange(self, request: bytes, sink: BodySink) -> float:
        """Send a whole request; the time at which the answer was whole.

        Raises:
            CutError: the peer closed too early.
            BrokenAnswerError: what came is no HTTP.
        """
        if self._transport is None or not self.alive:
            raise CutError(unanswered=True)
        # A parser of its own, so that an odd answer leaves no trace in the next.
        self._parser = httptools.HttpResponseParser(self)
        self._sink = sink
        self._began = self._has_length = self._in_body = False
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._done
        finally:
            if not self._done.done() or self._done.cancelled():
                self.close()  # the rest of that answer must not meet the next request
            self._sink = self._done = None

    def close(self) -> None:
        """Close at once."""
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    # ── asyncio's part ───────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast and no test: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self.alive = True

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._now = perf_counter()
        if self._parser is None or self._done is None:
            self.close()  # nothing was asked
            return
        self._began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenAnswerError(f"no HTTP came back: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way: whole, where the end of the connection is that of the body."""
        del exc
        self.alive = False
        if self._in_body and not self._has_length:
            self._finish(perf_counter())
        else:
            self._fail(CutError(unanswered=not self._began))

    # ── the parser's part ────────────────────────────────────────────────────────────────

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note how the body's end will be known."""
        del value
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """Tell the status, unless it only announces another."""
        if self._parser is None or self._sink is None:
            return
        status = self._parser.get_status_code()
        if status >= _SUCCESS:
            self._in_body = True
            self._sink.head(status)

    def on_body(self, body: bytes) -> None:
        """Pass a piece on."""
        if self._sink is not None:
            self._sink.body(body, self._now)

    def on_message_complete(self) -> None:
        """End the exchange."""
        if not self._in_body:
            return
        if self._parser is not None and not self._parser.should_keep_alive():
            self.alive = False
        self._finish(self._now)

    def _finish(self, now: float) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(now)

    def _fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
