"""Requests with a body, on their way past the framework: what clients ask for all day.

The framework declares the same routes. It answers their paths' other spellings, to the same
effect, and other methods.
"""

from collections.abc import Mapping
from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from backplane_server.services.services import Services
from backplane_server.web.errors import dialect_of, map_error
from backplane_server.web.exchange import PostRoute, exchange
from backplane_server.web.responses import Answer

AnyRequest = Request[Any, Any, Any]
PostRoutes = Mapping[str, PostRoute[Any]]


class DirectRoutes:
    """ASGI middleware in front of the framework.

    Args:
        app: the framework's part.
        services: the server's.
        routes: by their paths.
    """

    def __init__(self, app: ASGIApp, services: Services, routes: PostRoutes) -> None:
        self._app = app
        self._services = services
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        route = None
        if scope["type"] == "http" and scope["method"] == "POST":
            route = self._routes.get(scope["path"])
        if route is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            answer = await exchange(scope, receive, self._services, route)
        except Exception as error:  # noqa: BLE001 -- mapped here as the framework has it mapped
            mapped = map_error(error)
            body = mapped.body(dialect_of(scope["path"]))
            answer = Answer(body, status=mapped.status, headers=mapped.headers)
        await answer(scope, receive, send)


def declared(path: str, route: PostRoute[Any]) -> HTTPRouteHandler:
    """The same route for the framework."""

    @post(path)
    async def answer(request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        return await exchange(request.scope, request.receive, services, route)

    return answer
