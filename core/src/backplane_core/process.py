"""What every child process does about its own life: die with its parent, and log."""

import contextlib
import ctypes
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

if TYPE_CHECKING:
    import asyncio

_PR_SET_PDEATHSIG = 1
# Line ends as any viewer may take them, and what a terminal obeys.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def die_with_parent(signum: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send `signum` when the parent dies (Linux; elsewhere a no-op).

    Second to the control socket's end-of-file, for a process too stuck to read it.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), signum)


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended; one that nobody has waited for yet has."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # another user's
    except ProcessLookupError:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True  # not Linux, or hidden
    # After the name, which is in brackets and may hold anything.
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def leave_stopping_to_parent(*numbers: signal.Signals) -> None:
    """Ignore the signals that ask for an end; the parent hears them too, and says who ends when.

    Terminals send them to a whole group, service managers to every process of a service.

    Args:
        numbers: which ones; none given is all: SIGINT, SIGHUP and SIGTERM.
    """
    for number in numbers or (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


# TGI's words, where they are others than Python's.
_LEVEL_WORDS: Final = {"WARNING": "WARN", "CRITICAL": "ERROR"}


# How long a line may wait for others to be written with it.
_GATHER_S: Final = 0.02


# Given as a record's `extra`: its line is one of very many.
MAY_WAIT: Final = {"may_wait": True}


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes a busy event loop's lines together, since each write wakes whoever reads them.

    Only lines with `MAY_WAIT` wait for others. What else is logged is written at once, after all
    that waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[str] = []
        self._promised_on: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        try:
            self._waiting.append(self.format(record) + self.terminator)
            if hasattr(record, "may_wait"):
                self._flush_soon()
            else:
                self.flush()
        except Exception:  # noqa: BLE001 -- what logging has for this tells of it and goes on
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits."""
        with self._locked():
            lines, self._waiting = self._waiting, []
            if lines:
                self.stream.write("".join(lines))
            super().flush()

    def _flush_soon(self) -> None:
        import asyncio  # noqa: PLC0415 -- a command that prints a page needs no event loop: 35 ms

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if loop is not self._promised_on:
            self._promised_on = loop
            loop.call_later(_GATHER_S, self._keep_promise)

    def _keep_promise(self) -> None:
        self._promised_on = None
        self.flush()

    @contextlib.contextmanager
    def _locked(self) -> Generator[None, None, None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()


class _Seconds:
    """The text of a time's whole seconds; lines of one second share it."""

    def __init__(self, layout: str, convert: Callable[[float], time.struct_time]) -> None:
        self._layout = layout
        self._convert = convert
        self._known = (-1, "")

    def __call__(self, created: float) -> str:
        second = int(created)
        if second != self._known[0]:
            self._known = (second, time.strftime(self._layout, self._convert(second)))
        return self._known[1]


class JsonFormatter(logging.Formatter):
    """One flat JSON object a line, as TGI's: timestamp, level, target, message; and the process.

    What a record was given as `extra={"fields": {…}}` follows, then the traceback, if any.

    Args:
        process: "server-0", "worker-0"; empty leaves it out.
    """

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = {"process": process} if process else {}
        self._seconds = _Seconds("%Y-%m-%dT%H:%M:%S", time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Render a record. Fields never replace what every line has."""
        own: dict[str, Any] = {
            "timestamp": f"{self._seconds(record.created)}.{int(record.msecs):03d}Z",
            "level": _LEVEL_WORDS.get(record.levelname, record.levelname),
            **self._process,
            "target": record.name,
            "message": record.getMessage(),
        }
        fields = {**own, **getattr(record, "fields", {}), **own}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


class TextFormatter(logging.Formatter):
    """One record, one line: what a client managed to put into a sentence cannot begin another.

    Tracebacks keep their lines; they are code's own.
    """

    def __init__(self, layout: str) -> None:
        super().__init__(layout)
        self._seconds = _Seconds(self.default_time_format, time.localtime)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 -- logging's signature; there is one form
        """The time in `logging`'s own form."""
        return f"{self._seconds(record.created)},{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """Render a record without its traceback."""
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


def configure_logging(level: str, *, as_json: bool, label: str, gather: bool = False) -> None:
    """Send this process's log to standard error, with `label` naming the process.

    Args:
        level: "debug", "info", "warning", "error".
        as_json: one JSON object a line instead of text.
        label: "server-0", "worker-0".
        gather: whether lines of one moment are written together; see `GatheringHandler`.
    """
    handler = GatheringHandler() if gather else logging.StreamHandler()
    # No line tells of these, and they are looked up for each: logging's own advice.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if as_json:
        handler.setFormatter(JsonFormatter(label))
    else:
        handler.setFormatter(
            TextFormatter(f"%(asctime)s %(levelname)s {label} %(name)s: %(message)s")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
