"""The page at `/` for browsers: what is running, and a chat with it.

Facts are escaped on the way in; the script writes text nodes only.
"""

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import Final

from backplane_core.version import __version__

from backplane_server.services.services import Services

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


def _facts(services: Services) -> dict[str, str]:
    settings = services.settings
    facts = {"Model": settings.served_model_name or settings.model_id}
    if model := services.generation.known_model:
        info = model.info
        facts |= {
            "Backend": f"{info.model.backend} {info.model.backend_version}",
            "Device": info.model.device,
            "Context": f"{info.limits.max_total_tokens} tokens, of which a prompt may have "
            f"{info.limits.max_input_tokens}",
            "Sequences at a time": str(info.limits.max_sequences),
        }
    return facts


def home_page(services: Services) -> bytes:
    """The page, as UTF-8."""
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in _facts(services).items()
    )
    state = escape(services.generation.readiness.report().sentence)
    hidden = "" if services.settings.api_keys else " hidden"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Backplane</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Backplane {escape(__version__)}</h1>
<dl>{facts}<dt>State</dt><dd id="state">{state}</dd></dl>
<p><a href="docs/">API reference</a> · <a href="info">limits</a> · <a href="metrics">metrics</a></p>
<h2>Chat</h2>
<p>Answers are the likeliest ones (temperature 0), so a question asked anew has the same.</p>
<div id="log" role="log" aria-live="polite"></div>
<form id="form">
<textarea id="input" rows="2" aria-label="Your message" autofocus></textarea>
<button id="send">Send</button>
</form>
<label{hidden}>API key <input id="key" type="password" autocomplete="off"></label>
<script>{_SCRIPT}</script>
</body>
</html>
""".encode()
