"""A worker process without an interpreter's start: forked from the test, which has imported all.

Hundreds of workers start for the broken backends, and starting was most of what they cost.
"""

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import BinaryIO, Never

from backplane_core.testing.worker_process import WorkerProcess
from backplane_core.worker.__main__ import main

_MAX_FILES = 1024


class ForkedWorker(WorkerProcess):
    """`WorkerProcess` by another way to start; the rest is the same, signals and all."""

    def _spawn(
        self, python: str, document: Path, log: BinaryIO, environment: dict[str, str]
    ) -> "ForkedProcess":
        assert python == sys.executable
        return ForkedProcess(document, log, environment)


class ForkedProcess:
    """What `subprocess.Popen` would be."""

    def __init__(self, document: Path, log: BinaryIO, environment: dict[str, str]) -> None:
        self._status: int | None = None
        gc.freeze()  # the worker's collector need not copy what is the test's
        self.pid = os.fork()
        if self.pid == 0:
            _be_worker(document, log.fileno(), environment)

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        status = self._reap(0)
        assert status is not None
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:  # its number may be another's by now
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(9)

    def _reap(self, options: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status


def _be_worker(document: Path, log: int, environment: dict[str, str]) -> Never:
    status = 1
    try:
        os.setsid()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # The test's sockets are its own: held open here, they would hide a worker's death.
        os.closerange(3, _MAX_FILES)
        sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))  # noqa: SIM115 -- descriptors, for good
        status = main([str(document)])
    except BaseException:  # noqa: BLE001 -- nothing may go on as a second test run
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
