"""The one place where an error becomes a status, a body and headers.

Text of exceptions from outside the tree goes to the log under an id, never to a client.
"""

import asyncio
import logging
import math
import secrets
from dataclasses import dataclass, field
from typing import Final, Literal, TypeGuard

import msgspec
from backplane_core.errors import (
    AdapterError,
    BackplaneError,
    DeadlineExceededError,
    EngineError,
    GenerationError,
    OverloadedError,
    TemplateError,
    ToolError,
    UnavailableError,
    ValidationError,
)

from backplane_server.errors import (
    BodyError,
    ClientDisconnectedError,
    CompletionFormError,
    IncompleteGenerationError,
    MalformedJsonError,
    MediaTypeError,
    ModelNotFoundError,
    NotReadyError,
    PayloadTooLargeError,
    StalledBodyError,
    UnauthorizedError,
)
from backplane_server.metrics.metrics import FailureLabel
from backplane_server.services.readiness import ReadinessReport
from backplane_server.web.request_ids import current_request_id

_log = logging.getLogger(__name__)

Dialect = Literal["native", "openai"]


@dataclass(frozen=True)
class Row:
    """How one kind of error is told.

    Attributes:
        native_type: TGI's `error_type`.
        prefix: what TGI puts before the sentence on native routes.
        openai_type: OpenAI's `type`.
        label: `err` of the metric `tgi_request_failure`.
        shown: whether the error's own sentence may leave the server.
    """

    status: int
    native_type: str
    openai_type: str
    label: FailureLabel
    prefix: str = ""
    shown: bool = True


_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_FAILED: Final = "Request failed during generation: "

_REFUSED_BY_STATUS: Final = (
    BodyError,
    ClientDisconnectedError,
    CompletionFormError,
    TemplateError,
    ToolError,
    UnavailableError,
)

# Looked up along the exception's class hierarchy: the nearest row wins.
_ROWS: Final[dict[type[BaseException], Row]] = {
    ValidationError: Row(422, "validation", _INVALID, "validation", "Input validation error: "),
    MalformedJsonError: Row(400, "validation", _INVALID, "validation"),
    MediaTypeError: Row(415, "validation", _INVALID, "validation"),
    PayloadTooLargeError: Row(413, "validation", _INVALID, "validation"),
    StalledBodyError: Row(408, "validation", _INVALID, "validation"),
    ModelNotFoundError: Row(404, "model_not_found", _INVALID, "validation"),
    AdapterError: Row(422, "adapter_error", _INVALID, "validation", "Adapter error: "),
    TemplateError: Row(422, "template_error", _INVALID, "template", "Template error: "),
    ToolError: Row(422, "tool_error", _INVALID, "validation", "Tool error: "),
    UnauthorizedError: Row(401, "unauthorized", "authentication_error", "validation"),
    OverloadedError: Row(
        429, "overloaded", "rate_limit_error", "overloaded", "Model is overloaded: "
    ),
    UnavailableError: Row(503, "unavailable", "service_unavailable_error", "unavailable"),
    GenerationError: Row(424, "generation", _SERVER, "generation", _FAILED),
    DeadlineExceededError: Row(504, "deadline_exceeded", "timeout_error", "generation"),
    EngineError: Row(424, "generation", _SERVER, "generation", _FAILED, shown=False),
    IncompleteGenerationError: Row(
        500, "incomplete_generation", _SERVER, "incomplete", "Incomplete generation: "
    ),
    ClientDisconnectedError: Row(499, "client_disconnected", _INVALID, "dropped"),
    asyncio.CancelledError: Row(499, "client_disconnected", _INVALID, "dropped"),
    BackplaneError: Row(500, "internal", _SERVER, "generation", shown=False),
    Exception: Row(500, "internal", _SERVER, "generation", shown=False),
}


class NativeErrorBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """TGI's shape. `progress` comes with a 503 while no worker is ready."""

    error: str
    error_type: str
    progress: ReadinessReport | None = None


class OpenAIErrorDetail(msgspec.Struct, kw_only=True, omit_defaults=True):
    """OpenAI's fields. `http_status_code` comes in streams, whose own status is spent."""

    message: str
    type: str
    param: str | None
    code: str | None
    progress: ReadinessReport | None = None
    http_status_code: int | None = None


class OpenAIErrorBody(msgspec.Struct, kw_only=True):
    """OpenAI's shape."""

    error: OpenAIErrorDetail


class StrictErrorDetail(msgspec.Struct, kw_only=True):
    """TGI's fields in an OpenAI stream; the status is the same whatever happened."""

    message: str
    http_status_code: int = 422


class StrictErrorBody(msgspec.Struct, kw_only=True):
    """TGI's shape in an OpenAI stream."""

    error: StrictErrorDetail


@dataclass(frozen=True)
class HttpError:
    """An error ready to be told in either shape."""

    row: Row
    code: str
    message: str
    parameter: str | None = None
    report: ReadinessReport | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.row.status

    def body(self, dialect: Dialect) -> bytes:
        """The JSON body."""
        return self._encoded(dialect, in_stream=False)

    def event(self, dialect: Dialect, *, tgi_strict: bool = False) -> bytes:
        """The data of an event inside a stream; strictly, TGI's with no more than it has."""
        if tgi_strict and dialect == "openai":
            detail = StrictErrorDetail(message=self.row.prefix + self.message)
            return msgspec.json.encode(StrictErrorBody(error=detail))
        return self._encoded(dialect, in_stream=True)

    def _encoded(self, dialect: Dialect, *, in_stream: bool) -> bytes:
        return msgspec.json.encode(
            self._openai(in_stream=in_stream) if dialect == "openai" else self._native(in_stream)
        )

    def _native(self, in_stream: bool) -> NativeErrorBody:
        error_type = self.row.native_type
        if in_stream and error_type == "incomplete_generation":
            error_type = "incomplete_generation_stream"
        return NativeErrorBody(
            error=self.row.prefix + self.message, error_type=error_type, progress=self.report
        )

    def _openai(self, *, in_stream: bool) -> OpenAIErrorBody:
        detail = OpenAIErrorDetail(
            message=self.message,
            type=self.row.openai_type,
            param=self.parameter,
            code=self.code,
            progress=self.report,
            http_status_code=self.status if in_stream else None,
        )
        return OpenAIErrorBody(error=detail)


def dialect_of(path: str) -> Dialect:
    """The shape in which a path tells its errors."""
    return "openai" if path == "/v1" or path.startswith("/v1/") else "native"


def map_error(error: BaseException) -> HttpError:
    """Describe any exception for HTTP; what may not leave the server is logged here."""
    row = _row_of(error)
    if not isinstance(error, BackplaneError):
        return HttpError(row, "internal_error", _hidden(error))
    return HttpError(
        row,
        error.code,
        str(error) if row.shown else _hidden(error),
        parameter=error.parameter,
        report=error.report if isinstance(error, NotReadyError) else None,
        headers=_headers(error, row),
    )


def failure_label(error: BaseException) -> FailureLabel:
    """The metric's label for an error."""
    return _row_of(error).label


def told_in_stream(error: BaseException) -> TypeGuard[Exception]:
    """Whether TGI answers 200 and puts this into the stream that was asked for.

    Not before the body was read, nor in what it checks before a stream begins; nor, as it then
    refuses connections, while nobody can answer.
    """
    return isinstance(error, Exception) and not isinstance(error, _REFUSED_BY_STATUS)


def plain_error(status: int, code: str, message: str, *, parameter: str | None = None) -> HttpError:
    """An error of HTTP itself: no such route, no such method."""
    return HttpError(Row(status, code, _INVALID, "validation"), code, message, parameter)


def _row_of(error: BaseException) -> Row:
    return next((_ROWS[base] for base in type(error).__mro__ if base in _ROWS), _ROWS[Exception])


def _headers(error: BackplaneError, row: Row) -> dict[str, str]:
    headers: dict[str, str] = {}
    if row.status in {429, 503}:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1.0)))
    if row.status == 401:  # noqa: PLR2004 - the status's own meaning
        headers["www-authenticate"] = 'Bearer realm="backplane"'
    return headers


def _hidden(error: BaseException) -> str:
    """Log it under the id of the request, which the answer's `x-request-id` has too."""
    request_id = current_request_id.get() or secrets.token_hex(4)  # outside of any request
    _log.error(
        "error of request %s: %s",
        request_id,
        error,
        exc_info=error,
        extra={"fields": {"request_id": request_id}},
    )
    return f"internal error; the server's log has it under {request_id}"
