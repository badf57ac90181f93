"""Routes llama.cpp's own log into `logging` and remembers its last complaints.

llama.cpp says why it failed only in its log, so errors raised here quote it.
"""

import collections
import ctypes
import logging
import threading

from llama_cpp import llama_cpp as cpp  # noqa: TID253 - imported by engine modules alone

_logger = logging.getLogger("backplane.llamacpp.native")

# GGML_LOG_LEVEL_*: "info" (2) is a page per model load, "warning" (3) mostly advice on the file.
_LEVELS = {3: logging.INFO, 4: logging.ERROR}
_CONTINUE = 5
_complaints: collections.deque[str] = collections.deque(maxlen=8)
_lock = threading.Lock()
_last_level = 0
_partial = ""


def _on_log(level: int, text: bytes, _user_data: object) -> None:
    global _last_level, _partial  # noqa: PLW0603 - llama.cpp has one log per process
    with _lock:
        if level == _CONTINUE:
            level = _last_level
        _last_level = level
        lines = (_partial + text.decode("utf-8", "replace")).split("\n")
        _partial = lines.pop()
        for line in filter(None, map(str.strip, lines)):
            if level in _LEVELS:
                _complaints.append(line)
            _logger.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


# Held for the life of the process: llama.cpp keeps the bare pointer.
_callback = cpp.llama_log_callback(_on_log)


def route() -> None:
    """Take over the log. Idempotent."""
    cpp.llama_log_set(_callback, ctypes.c_void_p(0))


def forget_complaints() -> None:
    """Start anew, before a call whose complaints matter."""
    with _lock:
        _complaints.clear()


def complaints() -> list[str]:
    """Warnings and errors since the last `forget_complaints`, oldest first, at most 8."""
    with _lock:
        return list(_complaints)


def last_complaint(default: str) -> str:
    """The newest warning or error, without the C function's name in front."""
    said = complaints()
    if not said:
        return default
    function, separator, sentence = said[-1].partition(": ")
    return sentence if separator and " " not in function else said[-1]
