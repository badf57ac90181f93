"""What every child process does about its own life: die with its parent, and log."""

import ctypes
import logging
import os
import re
import signal
import sys
import time
from typing import Any, Final

import msgspec

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


class JsonFormatter(logging.Formatter):
    """One flat JSON object a line, as TGI's: timestamp, level, target, message; and the process.

    What a record was given as `extra={"fields": {…}}` follows, then the traceback, if any.

    Args:
        process: "server-0", "worker-0"; empty leaves it out.
    """

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        """Render a record. Fields never replace what every line has."""
        own: dict[str, Any] = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
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

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """Render a record without its traceback."""
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


def configure_logging(level: str, *, as_json: bool, label: str) -> None:
    """Send this process's log to standard error, with `label` naming the process.

    Args:
        level: "debug", "info", "warning", "error".
        as_json: one JSON object a line instead of text.
        label: "server-0", "worker-0".
    """
    handler = logging.StreamHandler()
    if as_json:
        handler.setFormatter(JsonFormatter(label))
    else:
        handler.setFormatter(
            TextFormatter(f"%(asctime)s %(levelname)s {label} %(name)s: %(message)s")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
