"""Raw ASGI answers: bytes that are already encoded, sent as they are."""

import re
from collections.abc import Mapping
from typing import Final

from litestar.types import Receive, Scope, Send

JSON: Final = "application/json"
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")


async def send_body(
    send: Send, status: int, body: bytes, content_type: str, headers: Mapping[str, str]
) -> None:
    """Send a whole answer. A 204 or an empty body has no content type."""
    raw = [(b"content-length", str(len(body)).encode())]
    if body:
        raw.append((b"content-type", content_type.encode()))
    raw += encode_headers(headers)
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole JSON answer."""
    await send_body(send, status, body, JSON, headers)


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them. What is not printable ASCII becomes a question mark.

    Some values are made elsewhere: a device's name, for one.
    """
    return [
        (name.lower().encode("ascii"), _NOT_PRINTABLE.sub("?", value).encode("ascii"))
        for name, value in headers.items()
    ]


class Answer:
    """A whole answer as an ASGI application, which handlers return."""

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body: Final = body
        self.status: Final = status
        self._content_type = content_type
        self._headers = dict(headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI has it
        """Send it."""
        await send_body(send, self.status, self.body, self._content_type, self._headers)
