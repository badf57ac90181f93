"""One order carried out by a backend in its own interpreter, with progress and an outcome.

The order comes on standard input; what is told goes to standard output, one marked line each, as
engines print what they like in between.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TextIO, TypeVar

import msgspec

from backplane_core.backend import ProgressSink
from backplane_core.errors import BackendError, BackplaneError, ErrorInfo
from backplane_core.process import die_with_parent

_MARK: Final = "backplane-errand: "
# How long an engine may take to clean up after itself.
_END_S = 10.0

OrderT = TypeVar("OrderT", bound=msgspec.Struct)


class _Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="progress"):
    """How far it is; `fraction` is 0…1 where known."""

    stage: str
    fraction: float | None = None
    detail: str = ""


class _Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="outcome"):
    """The last line: what went wrong, or what came of it."""

    error: ErrorInfo | None = None
    result: Any = None


_LINES: msgspec.json.Decoder[_Report | _Outcome] = msgspec.json.Decoder(_Report | _Outcome)


def send(
    python: str,
    module: str,
    order: msgspec.Struct,
    progress: ProgressSink,
    *,
    doing: str,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """Have the interpreter `python` carry out an order; blocks until it is done. What came of it.

    What the engine prints goes to standard error.

    Args:
        python: the backend's interpreter.
        module: whose `main` calls `carry_out_here`.
        order: what it is to do.
        progress: hears how far it is.
        doing: what is broken off if the process dies: "backend x stopped while it …".
        environ: the child's environment; None passes this process's own on.

    Raises:
        BackplaneError: what the backend said stands in the way.
        BackendError: the interpreter cannot be started, or it crashed.
    """
    try:
        child = subprocess.Popen(  # noqa: S603 - an interpreter the user named, and our own module
            [python, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=None if environ is None else dict(environ),
        )
    except OSError as error:
        raise BackendError(
            f"cannot start {python}: {error.strerror}", remedy="name an existing Python 3.11+"
        ) from error
    outcome: _Outcome | None = None
    with child:
        try:
            outcome = _follow(child, order, progress)
            with contextlib.suppress(subprocess.TimeoutExpired):  # it has said all there is
                child.wait(_END_S)
        finally:
            if child.poll() is None:
                child.kill()
    if outcome is None:
        raise BackendError(
            f"{doing}, with status {child.returncode}",
            remedy="its output above says more; is there memory enough?",
        )
    if outcome.error is not None:
        raise outcome.error.restore()
    return outcome.result


def _follow(
    child: subprocess.Popen[bytes], order: msgspec.Struct, progress: ProgressSink
) -> _Outcome | None:
    if child.stdin is None or child.stdout is None:
        raise AssertionError("both are pipes")
    try:
        child.stdin.write(msgspec.json.encode(order))
        child.stdin.close()
    except BrokenPipeError:
        pass  # it ended before it read the order: the missing outcome says so
    for line in child.stdout:
        # The engine may have left its own line open.
        text, mark, report = line.decode(errors="replace").rstrip("\n").partition(_MARK)
        if text or not mark:
            sys.stderr.write(f"{text}\n")
        if not mark:
            continue
        match _LINES.decode(report):
            case _Report(stage=stage, fraction=fraction, detail=detail):
                progress(stage, fraction, detail)
            case _Outcome() as outcome:
                return outcome
    return None


def carry_out_here(
    order_type: type[OrderT],
    carry_out: Callable[[OrderT, ProgressSink], msgspec.Struct | None],
    stdin: TextIO,
    stdout: TextIO,
) -> None:
    """Read an order, carry it out, and print how it goes: the other end of `send`."""
    die_with_parent()
    order = msgspec.json.decode(stdin.read(), type=order_type)

    def say(message: _Report | _Outcome) -> None:
        stdout.write(_MARK + msgspec.json.encode(message).decode() + "\n")
        stdout.flush()

    def progress(stage: str, fraction: float | None = None, detail: str = "") -> None:
        say(_Report(stage=stage, fraction=fraction, detail=detail))

    try:
        result = carry_out(order, progress)
    except BackplaneError as error:
        say(_Outcome(error=ErrorInfo.of(error)))
    else:
        say(_Outcome(result=result))
