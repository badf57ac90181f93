"""Which pages of the web may use this server from a browser. Never with a browser's credentials."""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from backplane_core.control import ServerLaunch
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from backplane_server.web.errors import dialect_of, plain_error
from backplane_server.web.host_check import is_loopback
from backplane_server.web.request_record import record_of
from backplane_server.web.responses import send_body, send_json

_METHODS: Final = "GET, POST"
_HEADERS: Final = (
    "authorization",
    "content-type",
    "openai-organization",
    "openai-project",
    "x-request-id",
)
# OpenAI's own client for browsers tells of itself in these.
_CLIENT_FACTS: Final = re.compile(r"x-stainless-[a-z-]{1,40}")
EXPOSED: Final = (
    "retry-after",
    "x-compute-characters",
    "x-compute-time",
    "x-compute-type",
    "x-generated-tokens",
    "x-ignored-parameters",
    "x-inference-time",
    "x-prompt-tokens",
    "x-queue-time",
    "x-request-id",
    "x-time-per-token",
    "x-total-time",
    "x-validation-time",
)
_VARY: Final = "origin, access-control-request-method, access-control-request-headers"
_VARY_MARK: Final = (b"vary", _VARY.encode())
_ALLOW: Final = b"access-control-allow-origin"
_EXPOSE_MARK: Final = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
_MAX_AGE_S: Final = 600
_MAX_SHOWN: Final = 100


# From an origin to the value of `access-control-allow-origin`; None where its pages may not read.
OriginPolicy = Callable[[str], str | None]


def origin_policy(settings: ServerLaunch) -> OriginPolicy:
    """All pages, as TGI; but only those that were named, or only this machine's.

    The last is for a server that others cannot reach and that wants no key: any page of the web
    could drive it, in the browser of whoever runs it. TGI lets them.
    """
    named = frozenset(origin.rstrip("/").lower() for origin in settings.cors_allow_origin)
    if named and "*" not in named:
        return lambda origin: origin if origin.lower() in named else None
    if named or settings.tgi_strict or settings.api_keys or not is_loopback(settings.hostname):
        return lambda _: "*"
    return lambda origin: origin if _is_of_this_machine(origin) else None


class Cors:
    """ASGI middleware that answers preflights and has answers marked, refusals among them.

    What stands around it keeps the request's record, and sends the marks.
    """

    def __init__(self, app: ASGIApp, policy: OriginPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it is a preflight: those are answered here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origins = _values(scope, b"origin")
        allowed = self._policy(origins[0]) if len(origins) == 1 else None
        if len(origins) == 1 and _is_preflight(scope):
            if allowed is None:
                await _refuse(scope, send, origins[0])
            else:
                await send_body(send, 204, b"", "", _preflight_headers(scope, allowed))
            return
        if (record := record_of(scope)) is not None:
            record.marks.append(_VARY_MARK)
            if allowed is not None:
                record.marks += (_ALLOW, allowed.encode("latin-1")), _EXPOSE_MARK
        await self._app(scope, receive, send)


def _is_preflight(scope: HTTPScope) -> bool:
    return scope["method"] == "OPTIONS" and bool(_values(scope, b"access-control-request-method"))


async def _refuse(scope: HTTPScope, send: Send, origin: str) -> None:
    """Say why, to whoever looks at what the browser was told; a key would not help."""
    error = plain_error(
        403,
        "origin_not_allowed",
        f"origin {origin[:_MAX_SHOWN]!r} is not allowed (the flag --cors-allow-origin lists them)",
    )
    headers = {**error.headers, "vary": _VARY}
    await send_json(send, error.status, error.body(dialect_of(scope["path"])), headers)


def _preflight_headers(scope: HTTPScope, allowed: str) -> dict[str, str]:
    asked = ",".join(_values(scope, b"access-control-request-headers")).lower().split(",")
    facts = {name.strip() for name in asked if _CLIENT_FACTS.fullmatch(name.strip())}
    return {
        "access-control-allow-origin": allowed,
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": ", ".join([*_HEADERS, *sorted(facts)]),
        "access-control-max-age": str(_MAX_AGE_S),
        "vary": _VARY,
    }


def _values(scope: HTTPScope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for each, value in scope["headers"] if each == name]


def _is_of_this_machine(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        host = parts.hostname
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and host is not None and is_loopback(host)
