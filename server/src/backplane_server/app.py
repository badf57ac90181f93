"""The application: controllers, the error mapper and authentication around one `Services`."""

from typing import Final

from backplane_core.control import ServerLaunch
from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.response import Response
from litestar.types import ASGIApp

from backplane_server.controllers import chat, completions, native, root, tokens
from backplane_server.controllers.health import HealthController
from backplane_server.controllers.model_facts import ModelFactsController
from backplane_server.controllers.pages import PagesController
from backplane_server.pages.docs import DOCS_PATHS
from backplane_server.services.services import Services
from backplane_server.web.auth import Authentication
from backplane_server.web.cors import Cors, origin_policy
from backplane_server.web.direct_routes import AnyRequest, DirectRoutes, PostRoutes, declared
from backplane_server.web.errors import HttpError, dialect_of, map_error, plain_error
from backplane_server.web.head_requests import HeadRequests
from backplane_server.web.host_check import HostCheck, is_loopback
from backplane_server.web.open_routes import open_routes
from backplane_server.web.request_log import RequestLog
from backplane_server.web.routes import RouteNames
from backplane_server.web.unrouted import no_method, no_route

_POST_ROUTES: Final[PostRoutes] = {
    **native.ROUTES,
    **tokens.ROUTES,
    **chat.ROUTES,
    **completions.ROUTES,
}


def create_app(services: Services) -> Litestar:
    """The ASGI application. The caller feeds `services` with workers and closes it.

    Raises:
        SetupError: a setting names what there is not.
    """
    app = Litestar(
        route_handlers=[
            *(declared(path, route) for path, route in _POST_ROUTES.items()),
            root.RootController,
            native.NativeController,
            ModelFactsController,
            HealthController,
            PagesController,
        ],
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        signature_types=[Services],
        exception_handlers={HTTPException: _http_exception, Exception: _exception},
        openapi_config=None,  # the document is our own: bodies are read by our own gate
        request_max_body_size=None,  # likewise: its limit is ours
        logging_config=None,
    )
    app.asgi_handler = _with_edges(app, services)
    return app


def _with_edges(app: Litestar, services: Services) -> ASGIApp:
    """The application behind everything that looks at every request, the outermost last."""
    settings = services.settings
    handler = DirectRoutes(app.asgi_handler, services, {**root.ROUTES, **_POST_ROUTES})
    handler = Authentication(
        handler,
        settings.api_keys,
        open_routes(settings.open_routes, DOCS_PATHS, tgi_strict=settings.tgi_strict),
    )
    names = (settings.hostname, *settings.allowed_hosts)
    handler = HostCheck(handler, names, any_name=not _is_private(settings))
    handler = HeadRequests(handler)
    handler = Cors(handler, origin_policy(settings))
    return RequestLog(handler, RouteNames(route.path for route in app.routes))


def _is_private(settings: ServerLaunch) -> bool:
    """Whether only known names may be used: on loopback without keys, or where names are listed.

    A server that listens for others goes by names nobody can foresee (a service's, a
    container's), and whoever reaches it can use it without a browser.
    """
    if settings.api_keys:
        return False
    return bool(settings.allowed_hosts) or is_loopback(settings.hostname)


def _exception(request: AnyRequest, error: Exception) -> Response[bytes]:
    return _respond(request, map_error(error))


def _http_exception(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Errors of HTTP itself, which the framework raises: no route, no such method."""
    allow = _allowed_methods(error)
    sentences = {
        400: ("bad_request", "the request's host or query cannot be read"),
        404: ("not_found", no_route(request.scope["path"])),
        405: ("method_not_allowed", no_method(allow)),
    }
    if error.status_code not in sentences:
        return _respond(request, map_error(error))
    mapped = plain_error(error.status_code, *sentences[error.status_code])
    if allow:
        mapped.headers["allow"] = allow
    return _respond(request, mapped)


def _allowed_methods(error: HTTPException) -> str:
    """The header `Allow`, where the error has one."""
    allow = (error.headers or {}).get("allow", "")
    methods = {method.strip() for method in allow.split(",") if method.strip()}
    # HEAD is answered outside the framework, wherever GET is.
    methods |= {"HEAD"} if "GET" in methods else set()
    return ", ".join(sorted(methods))


def _respond(request: AnyRequest, error: HttpError) -> Response[bytes]:
    return Response(
        error.body(dialect_of(request.scope["path"])),
        status_code=error.status,
        media_type="application/json",
        headers=error.headers,
    )
