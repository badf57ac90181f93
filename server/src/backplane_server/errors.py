"""Errors that only a server raises, under core's tree. `web.errors` maps all of them to HTTP.

BackplaneError
├── ValidationError
│   ├── BodyError               the request's body cannot be read as what the route takes
│   │   ├── MalformedJsonError      not JSON
│   │   ├── MediaTypeError          not declared to be JSON
│   │   ├── PayloadTooLargeError    over the limit
│   │   └── StalledBodyError        it does not arrive
│   ├── CompletionFormError     prompts or a suffix that no completion takes
│   └── ModelNotFoundError      neither the served model's name nor an adapter's
├── UnauthorizedError           no key, or a wrong one
├── GenerationError
│   └── IncompleteGenerationError   the stream ended before the sequence did
├── UnavailableError
│   └── NotReadyError           no worker yet, or any more; carries how far loading is
└── ClientDisconnectedError     nobody is there to answer
"""

from backplane_core.errors import (
    BackplaneError,
    GenerationError,
    UnavailableError,
    ValidationError,
)

from backplane_server.services.readiness import ReadinessReport


class BodyError(ValidationError):
    """The request's body cannot be read."""

    code = "invalid_body"


class MalformedJsonError(BodyError):
    """The body is not JSON."""

    code = "malformed_json"


class MediaTypeError(BodyError):
    """The body is not declared to be JSON, or is encoded."""

    code = "unsupported_media_type"


class PayloadTooLargeError(BodyError):
    """The body is over the limit."""

    code = "payload_too_large"


class StalledBodyError(BodyError):
    """The body stopped arriving."""

    code = "request_timeout"


class CompletionFormError(ValidationError):
    """A text completion with a suffix, or of more prompts than one request may hold."""


class ModelNotFoundError(ValidationError):
    """The model that was asked for is not served, and names are taken strictly."""

    code = "model_not_found"


class UnauthorizedError(BackplaneError):
    """The request has no key, or a wrong one."""

    code = "invalid_api_key"


class IncompleteGenerationError(GenerationError):
    """The worker ended the request's stream before its sequences were finished."""

    code = "incomplete_generation"


class NotReadyError(UnavailableError):
    """No worker can answer; `report` says how far each is."""

    code = "not_ready"

    def __init__(self, report: ReadinessReport) -> None:
        super().__init__(report.sentence, retry_after_s=1.0)
        self.report = report


class ClientDisconnectedError(BackplaneError):
    """The client went away before there was an answer."""

    code = "client_disconnected"
