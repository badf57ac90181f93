"""uvicorn as this server runs it: a given socket, no signals of its own, bounded headers.

The choice of uvicorn is told in docs/decisions/asgi-server.md.
"""

import asyncio
import contextlib
import math
import socket
from collections.abc import Generator
from typing import Final

import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES: Final = 64 * 1024
_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75
_SEND_BUFFER_BYTES: Final = 256 * 1024
_CUT_AFTER_S: Final = 1


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a request whose headers do not end within `MAX_HEADER_BYTES` and one read more.

    The parser keeps an unfinished header in memory, so what arrives is what is counted.
    """

    _num_bytes: float = 0

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; `on_headers_complete` runs within."""
        self._num_bytes += len(data)
        super().data_received(data)
        if self._num_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too large.")

    def on_headers_complete(self) -> None:
        """What follows is the body, whose size is bounded where it is read."""
        super().on_headers_complete()
        self._num_bytes = -math.inf

    def on_message_complete(self) -> None:
        """The next request's headers follow."""
        super().on_message_complete()
        self._num_bytes = 0


class HttpServer(uvicorn.Server):
    """Serves an application on one listening socket until `stop`."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedHttpProtocol,
                ws="none",
                lifespan="off",
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_CUT_AFTER_S,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
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


def address_of(listener: socket.socket, hostname: str) -> str:
    """The address for people: "http://127.0.0.1:3000"."""
    port = listener.getsockname()[1]
    host = f"[{hostname}]" if ":" in hostname else hostname
    return f"http://{host}:{port}"
