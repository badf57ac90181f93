"""`/`: TGI's older form of generation for clients, a page for browsers, health for the rest."""

from typing import Final

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.controllers.health import health_answer
from backplane_server.controllers.native import (
    NESTED,
    answer_stream,
    answer_whole,
    plan_for,
)
from backplane_server.dialects.native_types import CompatGenerateRequest
from backplane_server.pages.home import HOME_PAGE, HOME_POLICY, SAFE_HEADERS
from backplane_server.services.services import Services
from backplane_server.web.auth import asks_for_home_page
from backplane_server.web.body import BodyReader
from backplane_server.web.direct_routes import AnyRequest
from backplane_server.web.exchange import Exchange, PostRoute, exchange
from backplane_server.web.responses import Answer

_body: Final = BodyReader(CompatGenerateRequest, NESTED)


async def compat(current: Exchange, body: CompatGenerateRequest) -> ASGIApp:
    """The older form: an array of one answer, or a stream."""
    native = plan_for(current, body, stream=bool(body.stream))
    if body.stream:
        return await answer_stream(current, native)
    return current.answer([await answer_whole(current, native)])


ROUTES: Final = {"/": PostRoute(_body, compat)}


class RootController(Controller):
    """Everything at `/`."""

    @post("/")
    async def compat(self, request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        """Generation; for the framework, which wants one path's methods in one place."""
        return await exchange(request.scope, request.receive, services, ROUTES["/"])

    @get("/")
    async def home(self, request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        """The page for browsers; for everybody else the same as `/health`."""
        if not asks_for_home_page(request.scope):
            return health_answer(services)
        headers = {
            **SAFE_HEADERS,
            "content-security-policy": HOME_POLICY,
            "cache-control": "no-cache",
            "vary": "accept",
        }
        return Answer(HOME_PAGE, content_type="text/html; charset=utf-8", headers=headers)
