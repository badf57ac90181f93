"""The page at `/` for browsers: what is running, and a chat with it.

The same bytes for everybody: facts are fetched by its script, with the key where one is wanted,
and written as text nodes only.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Final

_FOLDER: Final = files("backplane_server.pages")
_STYLE: Final = (_FOLDER / "home.css").read_text("utf-8")
_SCRIPT: Final = (_FOLDER / "home.js").read_text("utf-8")


def source_hash(source: str) -> str:
    """How a Content-Security-Policy names an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


SAFE_HEADERS: Final = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
HOME_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    f"frame-ancestors 'none'; style-src {source_hash(_STYLE)}; "
    f"script-src {source_hash(_SCRIPT)}"
)
HOME_PAGE: Final = (
    (_FOLDER / "home.html").read_text("utf-8").format(style=_STYLE, script=_SCRIPT).encode()
)
