"""Every error that crosses a seam of Backplane, as one tree.

BackplaneError
├── ValidationError             the request is wrong; names the parameter
│   └── UnsupportedError        known parameter, but this backend cannot honour it
├── OverloadedError             no room now; carries when to try again
├── GenerationError             the engine failed this request
│   ├── WorkerDiedError         the worker process went away under the request
│   ├── OutOfMemoryError        the accelerator or the cache has no room for it
│   ├── DeadlineExceededError   the request's own deadline passed
│   └── EngineError             from outside this tree; its text is for logs, not for clients
├── UnavailableError            nothing can answer yet, or any more: loading, draining, crashed
├── TemplateError               the chat template failed
├── ToolError                   a tool definition or a tool call is wrong
├── AdapterError                an adapter is unknown or cannot be loaded
├── ProtocolError               a peer broke the wire protocol
└── SetupError                  a person must change something: flag, file, plugin; has a remedy
    ├── BackendError            a backend is missing, unavailable or broken
    └── ModelError              a model is missing, gated, broken or not supported
"""

from typing import ClassVar

import msgspec


class BackplaneError(Exception):
    """Root of the tree. `code` is the error's stable name on the wire and in metrics."""

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        parameter: str | None = None,
        remedy: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.parameter = parameter
        self.remedy = remedy
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class ValidationError(BackplaneError):
    """The request is wrong; `parameter` names the field."""

    code = "validation"


class UnsupportedError(ValidationError):
    """A known parameter that the running backend cannot honour."""

    code = "unsupported"


class OverloadedError(BackplaneError):
    """No room for the request now; `retry_after_s` says when to try again."""

    code = "overloaded"


class GenerationError(BackplaneError):
    """The engine failed this request."""

    code = "generation"


class WorkerDiedError(GenerationError):
    """The worker process went away while it answered the request."""

    code = "worker_died"


class OutOfMemoryError(GenerationError):
    """The device or the key-value cache has no room for the request."""

    code = "out_of_memory"


class DeadlineExceededError(GenerationError):
    """The request's own deadline passed before it was finished."""

    code = "deadline_exceeded"


class EngineError(GenerationError):
    """An exception from outside this tree, by its type and text: for logs, never for clients."""

    code = "engine"


class UnavailableError(BackplaneError):
    """Nothing can answer yet, or any more: loading, draining, restarting."""

    code = "unavailable"


class TemplateError(BackplaneError):
    """The chat template is missing or failed on this conversation."""

    code = "template"


class ToolError(BackplaneError):
    """A tool definition or a tool call is wrong."""

    code = "tool"


class AdapterError(BackplaneError):
    """An adapter is unknown or cannot be loaded."""

    code = "adapter"


class ProtocolError(BackplaneError):
    """A peer broke the wire protocol: framing, version, type or size."""

    code = "protocol"


class SetupError(BackplaneError):
    """A person must change something; `remedy` says what."""

    code = "setup"


class BackendError(SetupError):
    """A backend is missing, unavailable or broken."""

    code = "backend"


class ModelError(SetupError):
    """A model is missing, gated, broken or not supported."""

    code = "model"


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A BackplaneError as it travels: `restore` makes the exception again."""

    code: str
    message: str
    parameter: str | None = None
    remedy: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: BaseException) -> "ErrorInfo":
        """Describe any exception; one from outside the tree becomes an `EngineError`."""
        if isinstance(error, BackplaneError):
            return cls(
                code=error.code,
                message=error.message,
                parameter=error.parameter,
                remedy=error.remedy,
                retry_after_s=error.retry_after_s,
            )
        return cls(code=EngineError.code, message=f"{type(error).__name__}: {error}")

    def restore(self) -> BackplaneError:
        """The exception this describes; a code nobody knows becomes an EngineError."""
        error_class = _CLASSES.get(self.code, EngineError)
        return error_class(
            self.message,
            parameter=self.parameter,
            remedy=self.remedy,
            retry_after_s=self.retry_after_s,
        )


def _walk(root: type[BackplaneError]) -> list[type[BackplaneError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _walk(child))]


_CLASSES = {error_class.code: error_class for error_class in _walk(BackplaneError)}
