"""One question to a running server, for commands that need its answer."""

import http.client
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from backplane_core.errors import SetupError

from backplane_launcher.usage import UsageError

_TIMEOUT_S: Final = 60.0
_OK: Final = 200


class _Refusal(msgspec.Struct):
    error: Any = None


def ask_server(url: str, path: str, question: Mapping[str, Any], *, api_key: str | None) -> bytes:
    """POST a JSON document; the body of the answer.

    Raises:
        UsageError: `url` is no http or https URL.
        SetupError: nobody answers, or with another status than 200.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--url {url} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--url {url} is no URL", remedy="write http://HOST:PORT")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=_TIMEOUT_S)
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    try:
        target = parts.path.rstrip("/") + path
        connection.request("POST", target, msgspec.json.encode(question), headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise SetupError(
            f"{url} does not answer: {error or type(error).__name__}",
            remedy="check that a server runs there",
        ) from error
    finally:
        connection.close()
    if answer.status != _OK:
        raise SetupError(
            f"{url} answers {path} with status {answer.status}: {_said(body)}",
            remedy="give its key with --api-key"
            if answer.status == http.client.UNAUTHORIZED
            else "see the server's log",
        )
    return body


def _said(body: bytes) -> str:
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except msgspec.DecodeError:
        return "no reason that can be read"
    return str(refusal.error)[:300]
