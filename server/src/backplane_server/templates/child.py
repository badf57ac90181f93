"""`python -m backplane_server.templates.child`: renders templates for one server, on two pipes.

Has no sockets and opens no files; ends when its standard input does.
"""

import os
import resource
import signal
import sys
from typing import Any, Final

import msgspec
from backplane_core.errors import ErrorInfo, TemplateError
from backplane_core.process import die_with_parent
from backplane_core.wire import FrameDecoder, encode

_MEMORY_BYTES: Final = 1 << 30
_READ_BYTES: Final = 1 << 16


class Render(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Render `source` with these variables. `id` comes back with the answer."""

    id: int
    source: str
    variables: dict[str, Any]


class Rendered(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The text, or why there is none, of the request with this id."""

    id: int
    text: str = ""
    error: ErrorInfo | None = None


def answer(request: Render) -> Rendered:
    """Render one template; every failure is an answer."""
    from backplane_server.templates.sandbox import render  # noqa: PLC0415 - after the limits

    try:
        return Rendered(id=request.id, text=render(request.source, request.variables))
    except TemplateError as error:
        return Rendered(id=request.id, error=ErrorInfo.of(error))


def encoded_answer(request: Render) -> bytes:
    """The answer's frame. To be out of memory while it is made is an answer as well."""
    try:
        return encode(answer(request))
    except MemoryError:
        error = TemplateError("the template needs too much memory")
        return encode(Rendered(id=request.id, error=ErrorInfo.of(error)))


def limit_resources() -> None:
    """Bound what a template can take from the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer until standard input ends."""
    die_with_parent()
    # Ctrl-C reaches the whole terminal; this process ends with its server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    limit_resources()
    frames: FrameDecoder[Render] = FrameDecoder(Render)
    answer(Render(id=0, source="ready", variables={}))
    while data := os.read(sys.stdin.fileno(), _READ_BYTES):
        for request in frames.feed(data):
            reply = encoded_answer(request)
            while reply:
                reply = reply[os.write(sys.stdout.fileno(), reply) :]


if __name__ == "__main__":
    main()
