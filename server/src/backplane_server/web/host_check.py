"""On loopback without keys, only names known to mean this server: no page can rebind one.

A browser lets a page read what its own name serves, and a name's owner can point it at
127.0.0.1. What such a page cannot forge is the Host header.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from backplane_server.web.auth import ALWAYS_OPEN
from backplane_server.web.errors import HttpError, dialect_of, plain_error
from backplane_server.web.responses import send_json

_HOST: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_.-]{1,253}))(?::[0-9]{0,5})?"
)
_MAX_SHOWN: Final = 100
# Clients send a handful; those beyond are read again each time.
_MAX_REMEMBERED: Final = 256


class HostCheck:
    """ASGI middleware that reads the Host header of every path but the two probes.

    Args:
        app: what is guarded.
        names: names of this server beside IP addresses and localhost; case does not count.
        any_name: whether every name will do, as where a key is wanted anyway.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], *, any_name: bool) -> None:
        self._app = app
        own = {*names, socket.gethostname(), "localhost"}
        self._names = frozenset(_plain(name) for name in own)
        self._any_name = any_name
        self._passed: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400 or 403."""
        if (
            scope["type"] != "http"
            or scope["path"] in ALWAYS_OPEN
            or (error := self._problem(scope)) is None
        ):
            await self._app(scope, receive, send)
            return
        await send_json(send, error.status, error.body(dialect_of(scope["path"])), error.headers)

    def _problem(self, scope: HTTPScope) -> HttpError | None:
        values = [value for name, value in scope["headers"] if name == b"host"]
        if not values and scope["http_version"] == "1.0":
            return None  # no browser's
        if len(values) == 1 and values[0] in self._passed:
            return None
        host = values[0].decode("latin-1") if len(values) == 1 else ""
        match = _HOST.fullmatch(host)
        if match is None or (match["ipv6"] and not _is_address(match["ipv6"])):
            return plain_error(400, "bad_host", "send one `Host` header with a name or an address")
        if self._any_name or match["ipv6"] or self._is_known(_plain(match["name"])):
            if len(self._passed) < _MAX_REMEMBERED:
                self._passed.add(values[0])
            return None
        return plain_error(
            403,
            "host_not_allowed",
            f"this server is not known as {match['name'][:_MAX_SHOWN]!r}; "
            "the flag --allowed-host adds a name",
        )

    def _is_known(self, name: str) -> bool:
        return name in self._names or name.endswith(".localhost") or _is_address(name)


def is_loopback(hostname: str) -> bool:
    """Whether a listening address is this machine's own."""
    name = _plain(hostname.strip("[]"))
    if _is_address(name):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost" or name.endswith(".localhost")


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
