"""`python -m backplane_core.quantize`: a model written in another type, by a backend.

It runs in the backend's own interpreter. The order comes on standard input; progress and the
outcome go to standard output, one marked line each, as engines print what they like in between.
"""

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import msgspec

from backplane_core.backend import ModelSource, ProgressSink
from backplane_core.errors import BackendError, BackplaneError, ErrorInfo
from backplane_core.process import die_with_parent
from backplane_core.registry import discover

_MARK = "backplane-quantize: "
# How long an engine may take to clean up after itself.
_END_S = 10.0


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to make: the local model `source` as the new file `target`."""

    backend: str
    source: ModelSource
    target: str
    quantization: str


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="progress"):
    """How far it is; `fraction` is 0…1 where known."""

    stage: str
    fraction: float | None = None
    detail: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="outcome"):
    """The last line: what went wrong, or nothing."""

    error: ErrorInfo | None = None


_LINES: msgspec.json.Decoder[Report | Outcome] = msgspec.json.Decoder(Report | Outcome)


def run(
    python: str, order: Order, progress: ProgressSink, environ: Mapping[str, str] | None = None
) -> None:
    """Have the interpreter `python` carry out the order; blocks until it is done.

    What the engine prints goes to standard error. `environ` is the child's environment; None
    passes this process's own on.

    Raises:
        BackplaneError: what the backend said stands in the way.
        BackendError: the interpreter cannot be started, or it crashed.
    """
    try:
        child = subprocess.Popen(  # noqa: S603 - an interpreter the user named, and our own module
            [python, "-P", "-m", "backplane_core.quantize"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=None if environ is None else dict(environ),
        )
    except OSError as error:
        raise BackendError(
            f"cannot start {python}: {error.strerror}", remedy="name an existing Python 3.11+"
        ) from error
    outcome: Outcome | None = None
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
            f"backend {order.backend} stopped while it wrote {order.target}, with status "
            f"{child.returncode}",
            remedy="its output above says more; is there memory enough?",
        )
    if outcome.error is not None:
        raise outcome.error.restore()


def _follow(child: subprocess.Popen[bytes], order: Order, progress: ProgressSink) -> Outcome | None:
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
            case Report(stage=stage, fraction=fraction, detail=detail):
                progress(stage, fraction, detail)
            case Outcome() as outcome:
                return outcome
    return None


def carry_out(order: Order, progress: ProgressSink) -> None:
    """Carry out the order in this interpreter.

    Raises:
        BackplaneError: what stands in the way; the target is there already, for one.
    """
    target = Path(order.target)
    if target.exists():
        raise BackendError(f"{target} exists already", remedy="remove it, or name another file")
    backend = discover().create(order.backend)
    backend.quantize(order.source, target, order.quantization, progress)


def main(stdin: TextIO, stdout: TextIO) -> None:
    """Read an order, carry it out, and print how it goes."""
    die_with_parent()
    order = msgspec.json.decode(stdin.read(), type=Order)

    def say(message: Report | Outcome) -> None:
        stdout.write(_MARK + msgspec.json.encode(message).decode() + "\n")
        stdout.flush()

    def progress(stage: str, fraction: float | None = None, detail: str = "") -> None:
        say(Report(stage=stage, fraction=fraction, detail=detail))

    try:
        carry_out(order, progress)
    except BackplaneError as error:
        say(Outcome(error=ErrorInfo.of(error)))
    else:
        say(Outcome())


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
