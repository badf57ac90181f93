"""uvicorn as this server runs it: a given socket, no signals of its own, bounded headers.

The choice of uvicorn is told in docs/decisions/asgi-server.md.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Generator
from typing import Any, Final, cast

import uvicorn
from litestar.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backplane_server.web.client_link import ClientLink, LinkWatcher, offer, withdraw

MAX_HEADER_BYTES: Final = 64 * 1024
# Requests of a connection that wait for its first one's answer. With each answer uvicorn reads on,
# and a read can hold thousands.
_MAX_WAITING: Final = 128
_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75
_SEND_BUFFER_BYTES: Final = 256 * 1024
_CUT_AFTER_S: Final = 1


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses headers that do not end: in `MAX_HEADER_BYTES` and one read, or in time.

    The parser keeps an unfinished header in memory, so what arrives is what is counted. Nor is the
    rest of a body that was answered awaited for ever. Offers each request a `ClientLink`, whose
    watcher is told of the client.
    """

    def __init__(self, *args: Any, stall_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watcher: LinkWatcher | None = None
        self._stall_timeout_s = stall_timeout_s
        self._num_bytes = 0
        self._in_headers = True
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] -- uvicorn's own signature
        """A client connected; its first request is awaited."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; `on_headers_complete` and `on_message_complete` run within."""
        if self._in_headers:
            self._num_bytes += len(data)
        super().data_received(data)
        # Most requests come in one piece, and need no timer.
        if self._in_headers and self._num_bytes:
            if self._num_bytes > MAX_HEADER_BYTES:
                self._refuse("The headers are too large.")
            elif self._stalled is None:
                self._expect_headers()
        elif not self._in_headers and self.cycle.response_complete and self._stalled is None:
            # Nobody reads the rest, and uvicorn's own timer stopped with this first bit of it.
            self._stalled = self.loop.call_later(self._stall_timeout_s, self.transport.close)

    def on_headers_complete(self) -> None:
        """What follows is the body, which is bounded where it is read."""
        super().on_headers_complete()
        self._in_headers = False
        self._num_bytes = 0
        self._forget_stall()
        if self.scope["method"] != "HEAD":  # which has no body to write
            speaks_chunks = self.scope["http_version"] != "1.0"
            offer(self.scope, ClientLink(self, self.cycle, speaks_chunks=speaks_chunks))
        if len(self.pipeline) > _MAX_WAITING:
            self.transport.close()

    def on_message_complete(self) -> None:
        """The next request's headers may follow; until they begin, keep-alive limits the wait."""
        super().on_message_complete()
        self._in_headers = True
        self._forget_stall()

    def send_400_response(self, msg: str) -> None:
        """Tell what is wrong with a request, but not in the place of another's answer."""
        cycle = self.cycle  # none before the first request
        if self.pipeline or (
            cycle
            and not cycle.response_complete
            and (cycle.response_started or not cycle.more_body)
        ):
            self.transport.close()
        else:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forget_stall()
        self._unset_keepalive_if_required()  # uvicorn does where there was no error
        super().connection_lost(exc)
        if self.watcher is not None:
            self.watcher.lost()

    def pause_writing(self) -> None:
        """The client is slow."""
        super().pause_writing()
        if self.watcher is not None:
            self.watcher.pause()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self.watcher is not None:
            self.watcher.resume()

    def _expect_headers(self) -> None:
        self._stalled = self.loop.call_later(
            self._stall_timeout_s, self._refuse, "The headers took too long."
        )

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _refuse(self, sentence: str) -> None:
        if not self.transport.is_closing():
            self.send_400_response(sentence)


class HttpServer(uvicorn.Server):
    """Serves an application on one listening socket until `stop`; over TLS with a context."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        stall_timeout_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                _leaving_nothing(app),
                http=cast(
                    "type[asyncio.Protocol]",
                    functools.partial(BoundedHttpProtocol, stall_timeout_s=stall_timeout_s),
                ),
                ws="none",
                lifespan="off",
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_CUT_AFTER_S,
                log_config=None,
                log_level="warning",  # beginning and end are told by the process
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
            )
        )
        self._listener = listener
        self.listening: Final = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to whoever runs this."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        self.listening.set()

    async def run_until_stopped(self) -> None:
        """Serve; returns once `stop` was called and connections are closed."""
        await self.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Accept nothing more and cut what is still open."""
        self.should_exit = True


def _leaving_nothing(app: ASGIApp) -> ASGIApp:
    """The same, with no request left to the garbage collector for its link's sake."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            withdraw(scope)

    return answer


def open_listener(
    hostname: str, port: int, listen_fd: int | None, *, write_timeout_s: float
) -> socket.socket:
    """The socket to accept on: the one that was handed over, or a new one.

    A client that does not read is cut by the kernel after `write_timeout_s`, also when all that
    it was sent fits into buffers; accepted sockets inherit that from this one.

    Raises:
        OSError: the address cannot be bound.
    """
    if listen_fd is not None:
        listener = socket.socket(fileno=listen_fd)
    else:
        family, _, _, _, address = socket.getaddrinfo(
            hostname, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(write_timeout_s * 1000)
        )
    return listener


def address_of(listener: socket.socket, hostname: str, *, tls: bool = False) -> str:
    """The address for people: "http://127.0.0.1:3000"."""
    port = listener.getsockname()[1]
    host = f"[{hostname}]" if ":" in hostname else hostname
    return f"{'https' if tls else 'http'}://{host}:{port}"
