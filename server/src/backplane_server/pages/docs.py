"""Swagger UI at `/docs`, from files that are installed with the server."""

from importlib.resources import files
from typing import Final

from backplane_server.pages.home import source_hash

SPEC_PATH: Final = "/api-doc/openapi.json"
# What may be asked for under /docs/, and as what it is served. The version is the wheel's.
ASSETS: Final = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
}
# Every path of the documentation.
DOCS_PATHS: Final = ("/docs", "/docs/", *(f"/docs/{name}" for name in ASSETS), SPEC_PATH)

_SCRIPT: Final = (
    f'window.ui=SwaggerUIBundle({{url:"..{SPEC_PATH}",dom_id:"#ui",deepLinking:true,'
    "presets:[SwaggerUIBundle.presets.apis]});"
)
DOCS_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
    f"frame-ancestors 'none'; style-src 'self' 'unsafe-inline'; "
    f"script-src 'self' {source_hash(_SCRIPT)}"
)
PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Backplane API</title>
<link rel="stylesheet" href="swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script>{_SCRIPT}</script>
</body>
</html>
""".encode()


def read_asset(name: str) -> bytes:
    """The bytes of one of `ASSETS`."""
    vendor = files("swagger_ui_bundle") / "vendor"
    version = next(folder for folder in vendor.iterdir() if folder.name.startswith("swagger-ui"))
    return (version / name).read_bytes()
