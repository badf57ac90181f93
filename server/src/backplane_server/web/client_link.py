"""What our own HTTP protocol offers beside ASGI: the connection to a request's client.

In another server, or in a test, there is none: `receive` and `send` tell of the client then.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

_EXTENSION: Final = "backplane.client_link"


class LinkWatcher(ABC):
    """Who is told of a client at once, within the event loop's callback."""

    @abstractmethod
    def lost(self) -> None:
        """The client is gone; the last that is told."""

    def pause(self) -> None:  # noqa: B027 -- who writes nothing need not know
        """As much waits for the client as its transport is to hold."""

    def resume(self) -> None:  # noqa: B027 -- likewise
        """Little waits for it any more."""


class FlowControl(Protocol):
    """The part of uvicorn's flow control that is used here."""

    write_paused: bool

    def resume_reading(self) -> None:
        """Go on reading, where a large body had stopped it."""
        ...


class ResponseCycle(Protocol):
    """The part of uvicorn's state of one answer that is used here."""

    disconnected: bool
    chunked_encoding: bool | None
    body: bytearray
    more_body: bool
    keep_alive: bool
    waiting_for_100_continue: bool
    response_started: bool
    response_complete: bool
    message_event: asyncio.Event
    default_headers: list[tuple[bytes, bytes]]
    on_response: Callable[..., None]

    @property
    def flow(self) -> FlowControl:
        """Of its connection."""
        ...


class LinkedConnection(Protocol):
    """The part of our HTTP protocol that is used here. It tells its watcher, if it has one."""

    transport: asyncio.Transport
    watcher: LinkWatcher | None


class ClientLink:
    """One request's client. Requests of a connection are answered one after another."""

    __slots__ = ("_connection", "_cycle", "_speaks_chunks")

    def __init__(
        self, connection: LinkedConnection, cycle: ResponseCycle, *, speaks_chunks: bool
    ) -> None:
        self._connection = connection
        self._cycle = cycle
        self._speaks_chunks = speaks_chunks

    @property
    def lost(self) -> bool:
        """Whether the client is gone."""
        return self._cycle.disconnected or self._connection.transport.is_closing()

    @property
    def has_whole_body(self) -> bool:
        """Whether the request's body is here to its end."""
        return not self._cycle.more_body and not self.lost

    def take_body(self) -> bytes:
        """What came of the body and was not read yet; nobody else will read it."""
        cycle = self._cycle
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    @property
    def can_respond(self) -> bool:
        """Whether a whole answer can be written now: none has begun, and the client is not slow."""
        return not (self._cycle.response_started or self.slow or self.lost)

    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole answer where one `can_respond`, as ASGI's `send` would in two parts.

        Args:
            status: with a body as it comes: no 204 nor 304 but an empty one.
            headers: complete, `content-length` among them; no `connection`.
            body: likewise.

        Raises:
            ValueError: a line of the header would be two.
        """
        cycle, transport = self._cycle, self._connection.transport
        all_headers = [*cycle.default_headers, *headers]
        if not cycle.keep_alive:
            all_headers.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % header for header in all_headers]
        head = b"".join((STATUS_LINE[status], *lines))
        if not head.count(b"\r") == head.count(b"\n") == len(lines) + 1:
            raise ValueError("a header holds a line break")
        transport.write(b"".join((head, b"\r\n", body)))
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            transport.close()
        cycle.on_response()

    @property
    def transport(self) -> asyncio.Transport:
        """Takes bytes of the answer whose header was sent."""
        return self._connection.transport

    @property
    def slow(self) -> bool:
        """Whether as much waits for the client as its transport is to hold."""
        return self._cycle.flow.write_paused

    def watch(self, watcher: LinkWatcher) -> None:
        """Have one told of the client, until `unwatch`."""
        self._connection.watcher = watcher
        # A large body, or a request that follows too soon, had it stopped; who does not read does
        # not see a client leave.
        self._cycle.flow.resume_reading()

    def unwatch(self, watcher: LinkWatcher) -> None:
        """Tell it nothing more. Idempotent."""
        if self._connection.watcher is watcher:
            self._connection.watcher = None

    def open_ended(self) -> bool:
        """The answer's length is not known; its header is still to be sent.

        Returns:
            Whether its body goes in chunks. To a client of HTTP/1.0, which knows none, the
            connection's end is the body's.
        """
        if not self._speaks_chunks:
            self._cycle.chunked_encoding = False
        return self._speaks_chunks


def link_of(scope: Scope) -> ClientLink | None:
    """The link to a request's client, where our own protocol reads it."""
    extensions: dict[str, Any] = cast("dict[str, Any]", scope).get("extensions") or {}
    return extensions.get(_EXTENSION)


def offer(scope: Any, link: ClientLink) -> None:
    """For the protocol: let the application find it."""
    cast("dict[str, Any]", scope)["extensions"] = {_EXTENSION: link}


def withdraw(scope: Scope) -> None:
    """For the server: the request is over. What it leads to leads back to it, else."""
    cast("dict[str, Any]", scope).pop("extensions", None)
