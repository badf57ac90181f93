"""The id under which client and log speak of one request."""

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final

HEADER: Final = b"x-request-id"
_SAFE: Final = re.compile(rb"[A-Za-z0-9_.:@+=/-]{1,128}")

# For what is logged below the middleware, in the request's own task and those it begins.
current_request_id: Final[ContextVar[str]] = ContextVar("current_request_id", default="")


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's own, where there is one that can stand in a header and a log, else a new one."""
    given = [value for name, value in headers if name == HEADER]
    if len(given) == 1 and _SAFE.fullmatch(given[0]):
        return given[0].decode("ascii")
    return secrets.token_hex(16)
