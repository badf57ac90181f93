"""Deny by default: with keys set, every path wants one but what is open on purpose.

That is the two probes, the bare home page, and what the operator named. Looks at
`scope["path"]` alone, never at a URL put together from the Host header.
"""

import hmac
from collections.abc import Iterable
from typing import Final

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from backplane_server.errors import UnauthorizedError
from backplane_server.web.errors import dialect_of, map_error
from backplane_server.web.open_routes import OpenRoute
from backplane_server.web.refusal_log import RefusalLog
from backplane_server.web.request_record import record_of
from backplane_server.web.responses import send_json
from backplane_server.web.routes import NO_ROUTE

ALWAYS_OPEN: Final = frozenset({"/health/live", "/health/ready"})


def asks_for_home_page(scope: HTTPScope) -> bool:
    """Whether the answer is the page at `/`, which holds no facts and lets one type a key.

    The route decides by this too, so that nothing else is ever answered in the page's place.
    """
    return (
        scope["method"] == "GET"
        and scope["path"] == "/"
        and any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
    )


class Authentication:
    """ASGI middleware around the whole application, unknown paths included.

    Args:
        app: what is guarded.
        keys: the keys that open it; none opens it to everybody.
        open_routes: what needs none all the same.
    """

    def __init__(
        self, app: ASGIApp, keys: Iterable[str], open_routes: frozenset[OpenRoute]
    ) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._open = open_routes
        self._refusals = RefusalLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if not self._keys or scope["type"] != "http" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        problem = self._problem(scope)
        if problem is None:
            await self._app(scope, receive, send)
            return
        self._note(scope, problem)
        error = map_error(UnauthorizedError(problem))
        await send_json(send, error.status, error.body(dialect_of(scope["path"])), error.headers)

    def _note(self, scope: HTTPScope, problem: str) -> None:
        record = record_of(scope)
        route = NO_ROUTE if record is None else record.route
        self._refusals.note(scope["method"], route, problem)

    def _is_open(self, scope: HTTPScope) -> bool:
        return (
            scope["path"] in ALWAYS_OPEN
            or (scope["method"], scope["path"]) in self._open
            or asks_for_home_page(scope)
        )

    def _problem(self, scope: HTTPScope) -> str | None:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(values) != 1:
            return "send an API key as `Authorization: Bearer KEY`"
        scheme, _, token = values[0].partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token:
            return "send the API key as `Authorization: Bearer KEY`"
        # Every key is compared, so that the time tells nothing of which one was close.
        matches = [hmac.compare_digest(token, key) for key in self._keys]
        return None if any(matches) else "the API key is not valid"
