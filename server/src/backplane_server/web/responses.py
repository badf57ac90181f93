"""Raw ASGI answers: bytes that are already encoded, sent as they are."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from litestar.types import Receive, Scope, Send

from backplane_server.web.client_link import link_of
from backplane_server.web.request_record import RawHeader, record_of

JSON: Final = "application/json"
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")


async def send_body(
    send: Send, status: int, body: bytes, content_type: str, headers: Mapping[str, str]
) -> None:
    """Send a whole answer. A 204 or an empty body has no content type."""
    raw = [*_about(body, content_type), *encode_headers(headers)]
    await _send(send, status, raw, body)


async def _send(send: Send, status: int, headers: list[RawHeader], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _about(body: bytes, content_type: str) -> list[RawHeader]:
    length = (b"content-length", b"%d" % len(body))
    return [length, (b"content-type", content_type.encode())] if body else [length]


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole JSON answer."""
    await send_body(send, status, body, JSON, headers)


def encode_headers(headers: Mapping[str, str]) -> list[RawHeader]:
    """Headers as ASGI wants them. What is not printable ASCII becomes a question mark.

    Some values are made elsewhere: a device's name, for one.
    """
    return [
        (name.lower().encode("ascii"), _NOT_PRINTABLE.sub("?", value).encode("ascii"))
        for name, value in headers.items()
    ]


class Answer:
    """A whole answer as an ASGI application, which handlers return.

    Args:
        body: all of it.
        status: of the answer.
        content_type: left out where there is no body.
        headers: as text, of whatever origin.
        raw_headers: more of them, made here.
    """

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        raw_headers: Sequence[RawHeader] = (),
    ) -> None:
        self.body: Final = body
        self.status: Final = status
        own = encode_headers(headers) if headers else ()
        self._headers: Final = [*_about(body, content_type), *own, *raw_headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI has it
        """Send it: in one write where the connection is at hand, which costs a tenth."""
        link, record = link_of(scope), record_of(scope)
        if link is not None and record is not None and link.can_respond:
            record.status = self.status
            link.respond(self.status, record.marked(self._headers), self.body)
        else:
            await _send(send, self.status, self._headers, self.body)
