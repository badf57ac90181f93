"""Turns the Hub library's per-file bars into one progress report over all files of a model."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from backplane_core.backend import ProgressSink
from huggingface_hub.utils.tqdm import tqdm

_REPORT_EVERY_S: Final = 0.25


class DownloadProgress:
    """Bytes of several files against their sum. Bars may report from several threads.

    Args:
        sink: hears ("download", fraction, detail) a few times a second.
        total_bytes: 0 where the Hub gives no sizes; the fraction is then unknown.
    """

    def __init__(
        self,
        sink: ProgressSink,
        total_bytes: int,
        num_files: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._total = total_bytes
        self._num_files = num_files
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._reported = float("-inf")
        self._file_number = 0
        self._name = ""
        self._done_before = 0
        self._done_in_file = 0

    def start_file(self, name: str) -> None:
        """The next file's bytes follow."""
        with self._lock:
            self._done_before += self._done_in_file
            self._done_in_file = 0
            self._file_number += 1
            self._name = name
        self._report(force=True)

    def restart_file(self) -> None:
        """The file is begun again after a failure."""
        with self._lock:
            self._done_in_file = 0

    def add(self, num_bytes: int) -> None:
        """Some bytes came, or (negative) were thrown away."""
        with self._lock:
            self._done_in_file = max(0, self._done_in_file + num_bytes)
        self._report()

    def finish(self) -> None:
        """All files are here."""
        self._sink("download", 1.0, f"{self._num_files} files, {_size(self._total)}")

    def bar_class(self) -> type[tqdm]:
        """A class for the library's `tqdm_class` whose bars report here and draw nothing."""
        meter = self

        class ReportingBar(_SilentBar):
            def update(self, n: float | None = 1) -> bool | None:
                meter.add(int(n or 0))
                return super().update(n)

        return ReportingBar

    @staticmethod
    def silent_bar_class() -> type[tqdm]:
        """For small files that are not worth a report."""
        return _SilentBar

    def _report(self, *, force: bool = False) -> None:
        now = self._clock()
        with self._lock:
            if not force and now - self._reported < _REPORT_EVERY_S:
                return
            self._reported = now
            done = self._done_before + self._done_in_file
            rate = done / max(now - self._started, 1e-3)
            name, number = self._name, self._file_number
        fraction = min(1.0, done / self._total) if self._total else None
        whole = f" of {_size(self._total)}" if self._total else ""
        self._sink(
            "download",
            fraction,
            f"{name} ({number}/{self._num_files}), {_size(done)}{whole}, {_size(rate)}/s",
        )


class _SilentBar(tqdm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})  # pyright: ignore[reportUnknownMemberType] - tqdm is not typed


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:  # noqa: PLR2004 - decimal units, as disks are sold
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.2f} GB"
