"""What is known of a request under way, for the log, and what its answer is to bear."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from litestar.types import Scope

RawHeader = tuple[bytes, bytes]

_SCOPE_KEY: Final = "backplane.request_record"
_GONE_STATUS: Final = 499  # the client left before there was a status
_VARY: Final = b"vary"


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request once it is over; filled in by whoever knows it.

    Attributes:
        route: as it was declared ("/v1/models/{model}"), "-" where there is none such.
        status: of the answer; None until it begins.
        failure: the metric's `err`, also where an error came in a stream of status 200.
        finish: why the sequences ended, each reason once.
        worker_requests: the ids by which workers' logs know it.
        marks: headers that its answer bears, whatever it is; "vary" joins the answer's own.
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
    marks: list[RawHeader] = field(default_factory=list[RawHeader])

    def marked(self, headers: Iterable[RawHeader]) -> list[RawHeader]:
        """An answer's headers with the marks."""
        merged = [*headers, *self.marks]
        vary = [value for name, value in merged if name == _VARY]
        if len(vary) > 1:
            merged = [header for header in merged if header[0] != _VARY]
            merged.append((_VARY, b", ".join(vary)))
        return merged

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


def begin_record(scope: Scope, record: RequestRecord) -> None:
    """Keep the record of a request that begins where `record_of` finds it."""
    cast("dict[str, Any]", scope)[_SCOPE_KEY] = record


def record_of(scope: Scope) -> RequestRecord | None:
    """The record of a request under way; None outside the middleware."""
    return cast("dict[str, Any]", scope).get(_SCOPE_KEY)
