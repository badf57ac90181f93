"""One line for each request, and its id in each answer. Never a prompt, a key or a raw path."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from backplane_server.web.request_ids import HEADER, current_request_id, request_id_of

_log = logging.getLogger(__name__)

_SCOPE_KEY: Final = "backplane.request_record"
_GONE_STATUS: Final = 499  # the client left before there was a status
_IN_SENTENCE: Final = frozenset({"method", "route", "status", "duration_s"})
# What machines ask again and again.
_QUIET: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics", "/ping"})


@dataclass
class RequestRecord:
    """What is known of a request once it is over; filled in by whoever knows it.

    Attributes:
        route: as it was declared ("/v1/models/{model}"), "-" where there is none such.
        status: of the answer; None until it begins.
        failure: the metric's `err`, also where an error came in a stream of status 200.
        finish: why the sequences ended, each reason once.
        worker_requests: the ids by which workers' logs know it.
    """

    request_id: str
    method: str
    route: str
    status: int | None = None
    failure: str | None = None
    num_prompt_tokens: int | None = None
    num_generated_tokens: int | None = None
    finish: list[str] = field(default_factory=list[str])
    worker_requests: list[str] = field(default_factory=list[str])

    def fields(self, duration_s: float) -> dict[str, Any]:
        """For a structured log: what is known."""
        known: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status or _GONE_STATUS,
            "duration_s": round(duration_s, 6),
        }
        if self.failure is not None:
            known["failure"] = self.failure
        if self.num_prompt_tokens is not None:
            known["prompt_tokens"] = self.num_prompt_tokens
        if self.num_generated_tokens is not None:
            known["generated_tokens"] = self.num_generated_tokens
        if self.finish:
            known["finish"] = ",".join(self.finish)
        if self.worker_requests:
            known["worker_requests"] = ",".join(self.worker_requests)
        return known


def record_of(scope: Scope) -> RequestRecord | None:
    """The record of a request under way; None outside the middleware."""
    return cast("dict[str, Any]", scope).get(_SCOPE_KEY)


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
        record = RequestRecord(
            request_id=request_id_of(scope["headers"]),
            method=scope["method"],
            route=self._route_of(scope["path"]),
        )
        cast("dict[str, Any]", scope)[_SCOPE_KEY] = record
        current_request_id.set(record.request_id)
        raw_id = record.request_id.encode("ascii")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], (HEADER, raw_id)]
            await send(message)

        began = time.monotonic()
        try:
            await self._app(scope, receive, send_with_id)
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
    _log.handle(
        _log.makeRecord(_log.name, level, "", 0, sentence, (), None, extra={"fields": fields})
    )
