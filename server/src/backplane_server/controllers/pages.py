"""`GET /docs/…` and `/api-doc/openapi.json`: for people and for generators of clients."""

from functools import lru_cache
from typing import Final

from litestar import Controller, get
from litestar.params import FromPath
from litestar.types import ASGIApp

from backplane_server.openapi import openapi_document
from backplane_server.pages.docs import ASSETS, DOCS_POLICY, PAGE, SPEC_PATH, read_asset
from backplane_server.pages.home import SAFE_HEADERS
from backplane_server.web.direct_routes import AnyRequest
from backplane_server.web.errors import plain_error
from backplane_server.web.responses import Answer

_HTML: Final = "text/html; charset=utf-8"


@lru_cache(maxsize=len(ASSETS))
def _asset(name: str) -> bytes:
    return read_asset(name)


class PagesController(Controller):
    """The description of the API, to be read and to be tried."""

    @get("/docs")
    async def docs(self, request: AnyRequest) -> ASGIApp:
        """Swagger UI. Its files' addresses are relative, so the path must end in a slash."""
        if not request.scope["raw_path"].endswith(b"/"):
            return Answer(b"", status=307, headers={"location": "docs/"})
        headers = {**SAFE_HEADERS, "content-security-policy": DOCS_POLICY}
        return Answer(PAGE, content_type=_HTML, headers=headers)

    @get("/docs/{name:str}")
    async def docs_file(self, name: FromPath[str]) -> ASGIApp:
        """A file of Swagger UI."""
        if name not in ASSETS:
            error = plain_error(404, "not_found", "there is no such page")
            return Answer(error.body("native"), status=error.status)
        headers = {**SAFE_HEADERS, "cache-control": "max-age=86400"}
        return Answer(_asset(name), content_type=ASSETS[name], headers=headers)

    @get(SPEC_PATH)
    async def openapi(self) -> ASGIApp:
        """The API as OpenAPI 3.0."""
        return Answer(openapi_document())
