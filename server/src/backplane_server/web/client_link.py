"""What our own HTTP protocol offers beside ASGI: the connection to a request's client.

In another server, or in a test, there is none: `receive` and `send` tell of the client then.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Final, Protocol, cast

from litestar.types import Scope

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


class ResponseCycle(Protocol):
    """The part of uvicorn's state of one answer that is used here."""

    disconnected: bool
    chunked_encoding: bool | None


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
    def transport(self) -> asyncio.Transport:
        """Takes bytes of the answer whose header was sent."""
        return self._connection.transport

    def watch(self, watcher: LinkWatcher) -> None:
        """Have one told of the client, until `unwatch`."""
        self._connection.watcher = watcher

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
    extensions = cast("dict[str, Any]", scope).get("extensions") or {}
    return extensions.get(_EXTENSION)


def offer(scope: Any, link: ClientLink) -> None:
    """For the protocol: let the application find it."""
    cast("dict[str, Any]", scope)["extensions"] = {_EXTENSION: link}
