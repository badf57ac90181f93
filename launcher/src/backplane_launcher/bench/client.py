"""Sends one request after another to a server, over connections that stay open."""

import asyncio
import ssl
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

import msgspec

from backplane_launcher.bench.connection import BrokenAnswerError, Connection, CutError
from backplane_launcher.bench.dialects import Ask, Dialect, refusal_of
from backplane_launcher.bench.event_stream import EventSplitter
from backplane_launcher.bench.reply import CONNECT, CUT, GARBAGE, OK, TIMEOUT, Reply
from backplane_launcher.usage import UsageError

_MAX_REFUSAL: Final = 4096


class Address:
    """Where a server is. `prefix` stands before every path."""

    def __init__(self, url: str) -> None:
        """Read a URL.

        Raises:
            UsageError: it is none of http or https.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"{url} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise UsageError(f"{url} is no URL", remedy="write http://HOST:PORT")
        self.url = url
        self.host = host
        self.tls = parts.scheme == "https"
        self.port = port or (443 if self.tls else 80)
        self.netloc = parts.netloc.rpartition("@")[2]
        self.prefix = parts.path.rstrip("/")

    def request(self, method: str, path: str, body: bytes, api_key: str | None) -> bytes:
        """A whole request."""
        key = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
        head = (
            f"{method} {self.prefix}{path} HTTP/1.1\r\n"
            f"Host: {self.netloc}\r\n"
            f"{key}"
            "Accept: */*\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Client:
    """A server as requests meet it. Connections are opened as needed and used again."""

    def __init__(
        self,
        address: Address,
        dialect: Dialect,
        *,
        streams: bool,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self.address = address
        self.dialect = dialect
        self.model = model
        self._streams = streams
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._idle: list[Connection] = []
        self._tls = ssl.create_default_context() if address.tls else None

    async def send(self, ask: Ask, reply: Reply) -> None:
        """Ask, and read the answer to its end. Whatever fails is noted in the reply.

        Args:
            ask: the request.
            reply: to be filled; only `started` is set.
        """
        body = self.dialect.body(ask, self.model)
        request = self.address.request("POST", self.dialect.path, body, self._api_key)
        sink = (
            _StreamSink(self.dialect, reply) if self._streams else _WholeSink(self.dialect, reply)
        )
        await self._exchange(request, sink, reply)
        if not reply.ended:
            reply.ended = perf_counter()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a plain question; status 0 where nobody answers."""
        reply = Reply(started=perf_counter())
        sink = _BodySink(reply)
        await self._exchange(self.address.request("GET", path, b"", self._api_key), sink, reply)
        return (0 if reply.failure else reply.status), sink.content

    async def connect(self, num: int) -> None:
        """Open so many connections beforehand; those that cannot be are left to their requests."""
        for _ in range(num - len(self._idle)):
            try:
                self._idle.append(await self._open())
            except OSError:
                return

    def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _open(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, self.address.host, self.address.port, ssl=self._tls
        )
        return connection

    async def _exchange(
        self, request: bytes, sink: "_WholeSink | _StreamSink | _BodySink", reply: Reply
    ) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply.ended = await self._on_some_connection(request, sink)
        except OSError as error:
            # TimeoutError is one.
            if isinstance(error, TimeoutError):
                reply.fail(TIMEOUT, f"no whole answer in {self._timeout_s:g} s")
            else:
                reply.fail(CONNECT, error.strerror or str(error) or type(error).__name__)
        except CutError as error:
            reply.fail(CUT, str(error))
        except BrokenAnswerError as error:
            reply.fail(GARBAGE, str(error))
        except msgspec.DecodeError as error:
            reply.fail(GARBAGE, f"what came is not this API's: {error}")
        else:
            sink.end()

    async def _on_some_connection(
        self, request: bytes, sink: "_WholeSink | _StreamSink | _BodySink"
    ) -> float:
        while self._idle:
            connection = self._idle.pop()
            if not connection.alive:
                continue
            try:
                return await self._on(connection, request, sink)
            except CutError as error:
                # A server may close an idle connection just when it is used again.
                if not error.unanswered:
                    raise
        return await self._on(await self._open(), request, sink)

    async def _on(
        self, connection: Connection, request: bytes, sink: "_WholeSink | _StreamSink | _BodySink"
    ) -> float:
        ended = await connection.exchange(request, sink)
        if connection.alive:
            self._idle.append(connection)
        return ended


class _BodySink:
    """Keeps the body."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._pieces: list[bytes] = []

    def head(self, status: int) -> None:
        self._reply.status = status

    def body(self, piece: bytes, now: float) -> None:
        del now
        self._pieces.append(piece)

    def end(self) -> None:
        pass  # any status is an answer

    @property
    def content(self) -> bytes:
        return b"".join(self._pieces)


class _WholeSink(_BodySink):
    """Reads a whole answer when it has ended."""

    def __init__(self, dialect: Dialect, reply: Reply) -> None:
        super().__init__(reply)
        self._dialect = dialect

    def end(self) -> None:
        reply = self._reply
        if reply.status != OK:
            reply.fail(f"status {reply.status}", refusal_of(self.content))
            return
        try:
            self._dialect.read_whole(self.content, reply)
        except msgspec.DecodeError as error:
            reply.fail(GARBAGE, f"what came is not this API's: {error}")
        else:
            if not reply.finished:
                reply.fail(GARBAGE, f"no answer in {self.content[:100]!r}")


class _StreamSink:
    """Reads events as they come, so that none is read in the next request's time."""

    def __init__(self, dialect: Dialect, reply: Reply) -> None:
        self._read = dialect.read_event
        self._reply = reply
        self._splitter = EventSplitter()
        self._refusal: list[bytes] = []

    def head(self, status: int) -> None:
        self._reply.status = status

    def body(self, piece: bytes, now: float) -> None:
        if self._reply.status != OK:
            if sum(map(len, self._refusal)) < _MAX_REFUSAL:
                self._refusal.append(piece)
            return
        try:
            for data in self._splitter.feed(piece):
                self._read(data, self._reply, now)
        except msgspec.DecodeError as error:
            self._reply.fail(GARBAGE, f"an event is not this API's: {error}")

    def end(self) -> None:
        reply = self._reply
        if reply.status != OK:
            reply.fail(f"status {reply.status}", refusal_of(b"".join(self._refusal)))
        elif not reply.finished or not self._splitter.is_between_events:
            reply.fail(CUT, "the stream ended before the answer did")
