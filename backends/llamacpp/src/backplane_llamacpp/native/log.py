"""Routes llama.cpp's own log into `logging` and remembers its complaints.

llama.cpp says why it failed only in its log, so errors raised here quote it.
"""

import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator

from llama_cpp import llama_cpp as cpp  # noqa: TID253 - imported by engine modules alone

_log = logging.getLogger("backplane_llamacpp.native")

# GGML_LOG_LEVEL_*: "info" (2) is a page per model load, "warning" (3) mostly advice to whoever
# converts models, so both are for debugging.
_WARNING, _ERROR, _CONTINUE = 3, 4, 5
_MOST_REMEMBERED = 64

_lock = threading.Lock()
_complaints: list[tuple[int, str]] = []
_last_level = 0
_partial = ""
_follower: Callable[[str], None] | None = None


def _on_log(level: int, text: bytes, _user_data: object) -> None:
    global _last_level, _partial  # noqa: PLW0603 - llama.cpp has one log per process
    with _lock:
        if level == _CONTINUE:
            level = _last_level
        _last_level = level
        lines = (_partial + text.decode("utf-8", "replace")).split("\n")
        _partial = lines.pop()
        for line in filter(None, map(str.strip, lines)):
            if level in {_WARNING, _ERROR} and len(_complaints) < _MOST_REMEMBERED:
                _complaints.append((level, line))
            _log.log(logging.ERROR if level == _ERROR else logging.DEBUG, "%s", line)
            if _follower is not None:
                _follower(line)


# Held for the life of the process: llama.cpp keeps the bare pointer.
_callback = cpp.llama_log_callback(_on_log)


def route() -> None:
    """Take over the log. Idempotent."""
    cpp.llama_log_set(_callback, ctypes.c_void_p(0))


@contextlib.contextmanager
def followed_by(follower: Callable[[str], None]) -> Iterator[None]:
    """Give each line of the log to `follower`; what that raises is raised at the end."""
    global _follower  # noqa: PLW0603 - llama.cpp has one log per process
    raised: list[BaseException] = []

    def follow(line: str) -> None:
        try:
            follower(line)
        except BaseException as error:  # noqa: BLE001 - it must not pass through C; raised below
            raised.append(error)

    _follower = follow
    try:
        yield
    finally:
        _follower = None
    if raised:
        raise raised[0]


def forget_complaints() -> None:
    """Start anew, before a call whose complaints matter."""
    with _lock:
        _complaints.clear()


def complaints() -> list[str]:
    """Warnings and errors since the last `forget_complaints`, oldest first."""
    with _lock:
        return [line for _, line in _complaints]


def cause(default: str = "it does not say why") -> str:
    """The first error since then (those after it only pass it on), or else the last warning."""
    with _lock:
        errors = [line for level, line in _complaints if level == _ERROR]
        said = errors[:1] or [line for _, line in _complaints[-1:]]
    if not said:
        return default
    function, separator, sentence = said[0].partition(": ")
    return sentence if separator and " " not in function else said[0]
