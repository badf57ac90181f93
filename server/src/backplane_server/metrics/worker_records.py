"""The last that each worker said of its counters, kept beyond its life and shared by all servers.

A worker counts from its own start. What all workers ever counted is the sum over their records,
whoever asks, however often a server or a worker was started again.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from backplane_core.messages import RunnerStats

_log = logging.getLogger(__name__)

Records = dict[str, RunnerStats]

_decoder: Final = msgspec.msgpack.Decoder(Records)


class WorkerRecords:
    """Records by life: a name that one process of a worker has and no other ever gets.

    Args:
        folder: where the servers of one launch keep them; None keeps them in this process.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._records: Records = {}
        self._lock = threading.Lock()

    def update(self, news: Mapping[str, RunnerStats]) -> Records:
        """Take over what workers just said; all records there are. Blocks on files.

        Where the folder cannot be used (a full disk), this process goes by what it has heard.
        """
        with self._lock:
            self._records = _later(self._records, news)
            if self._folder is not None:
                try:
                    self._records = _shared(self._folder, self._records)
                except OSError as error:
                    _log.warning("workers' counts are not shared: %s", error.strerror)
            return self._records


def _shared(folder: Path, news: Records) -> Records:
    """The folder's records with these among them."""
    with (folder / "workers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        path = folder / "workers.msgpack"
        before = _decoder.decode(path.read_bytes()) if path.exists() else {}
        records = _later(before, news)
        if records != before:
            _replace(path, msgspec.msgpack.encode(records))
    return records


def _replace(path: Path, data: bytes) -> None:
    """In one step: a server that is killed in the midst of it leaves the old file."""
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_bytes(data)
    new.replace(path)


def _later(records: Records, news: Mapping[str, RunnerStats]) -> Records:
    """The union, of two that speak of the same life the one that was said later.

    Servers ask in parallel, so an answer can arrive here after a later one. Counters never fall
    within a life, which tells the two apart.
    """
    later = {
        life: stats
        for life, stats in news.items()
        if (known := records.get(life)) is None or _age(stats) >= _age(known)
    }
    return {**records, **later}


def _age(stats: RunnerStats) -> tuple[int, ...]:
    return (
        stats.num_steps + stats.num_prompt_tokens + stats.num_generated_tokens,
        stats.num_cancelled + stats.num_failed + stats.num_finished + stats.num_preemptions,
    )
