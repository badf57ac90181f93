"""One line for each request, and in each answer what it is to bear, its id for one.

Never a prompt, a key or a raw path.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from backplane_core.process import MAY_WAIT
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from backplane_server.web.request_ids import HEADER, current_request_id, request_id_of
from backplane_server.web.request_record import RequestRecord, begin_record

_log = logging.getLogger(__name__)

_IN_SENTENCE: Final = frozenset({"method", "route", "status", "duration_s"})
# What machines ask again and again.
_QUIET: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics", "/ping"})


class RequestLog:
    """ASGI middleware around all others.

    Args:
        app: what answers.
        route_of: the declared route of a path.
    """

    def __init__(self, app: ASGIApp, route_of: Callable[[str], str]) -> None:
        self._app = app
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; log it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope["headers"])
        record = RequestRecord(
            request_id=request_id,
            method=scope["method"],
            route=self._route_of(scope["path"]),
            marks=[(HEADER, request_id.encode("ascii"))],
        )
        begin_record(scope, record)
        current_request_id.set(request_id)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = record.marked(message["headers"])
            await send(message)

        began = time.monotonic()
        try:
            await self._app(scope, receive, send_marked)
        finally:
            _write(record, time.monotonic() - began)


def _write(record: RequestRecord, duration_s: float) -> None:
    level = logging.DEBUG if record.route in _QUIET else logging.INFO
    if not _log.isEnabledFor(level):
        return
    fields = record.fields(duration_s)
    shown = "".join([f" {name}={fields[name]}" for name in fields if name not in _IN_SENTENCE])
    sentence = (
        f"{record.method} {record.route} {fields['status']} in {duration_s * 1000:.1f} ms{shown}"
    )
    # What `_log.log` does, but for looking up which line of which file called it.
    extra = {"fields": fields, **MAY_WAIT}
    _log.handle(_log.makeRecord(_log.name, level, "", 0, sentence, (), None, extra=extra))
