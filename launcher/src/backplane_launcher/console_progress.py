"""Download progress for people: a line that rewrites itself on a terminal, log lines elsewhere."""

import logging
import time
from collections.abc import Callable
from typing import Final, TextIO

_log = logging.getLogger(__name__)

_LINE_EVERY_S: Final = 10.0
_BAR_WIDTH: Final = 30


class ConsoleProgress:
    """A `ProgressSink`. On a terminal the bar ends its line when the fraction reaches 1."""

    def __init__(
        self,
        stream: TextIO,
        *,
        as_json: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._draws = stream.isatty() and not as_json
        self._clock = clock
        self._last = float("-inf")

    def __call__(self, stage: str, fraction: float | None = None, detail: str = "") -> None:
        """Show one report."""
        if self._draws:
            self._draw(stage, fraction, detail)
            return
        now = self._clock()
        if fraction == 1.0 or now - self._last >= _LINE_EVERY_S:
            self._last = now
            percent = "" if fraction is None else f"{fraction:.0%}"
            _log.info("%s", " ".join(part for part in (stage, percent, detail) if part))

    def _draw(self, stage: str, fraction: float | None, detail: str) -> None:
        filled = round((fraction or 0.0) * _BAR_WIDTH)
        bar = f"[{'#' * filled:{_BAR_WIDTH}}] {fraction:4.0%} " if fraction is not None else ""
        end = "\n" if fraction == 1.0 else ""
        self._stream.write(f"\r\x1b[K{stage} {bar}{detail}{end}")
        self._stream.flush()


class DownloadsOnly:
    """A `ProgressSink` that shows downloads alone: what comes before them takes no time."""

    def __init__(self, console: ConsoleProgress) -> None:
        self._console = console

    def __call__(self, stage: str, fraction: float | None = None, detail: str = "") -> None:
        """Show one report."""
        if stage == "download":
            self._console(stage, fraction, detail)
