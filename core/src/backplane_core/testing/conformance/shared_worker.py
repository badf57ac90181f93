"""One worker for many tests: idle between them, replaced when one of them broke it."""

from typing import TYPE_CHECKING

from backplane_core.errors import BackplaneError
from backplane_core.messages import RunnerStats
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.testing.worker_process import WorkerProcess

if TYPE_CHECKING:
    from backplane_core.testing.conformance.base import ConformanceBase


class SharedWorker:
    """Starts the suite's worker when it is first needed."""

    def __init__(self, suite: "ConformanceBase") -> None:
        self._suite = suite
        self._worker: WorkerProcess | None = None
        self._client: WorkerClient | None = None

    @property
    def process(self) -> WorkerProcess:
        """The worker, started if there is none or it died."""
        if self._worker is not None and not self._worker.alive:
            self.close()
        if self._worker is None:
            self._worker = self._suite.start_worker()
        return self._worker

    def connect(self) -> WorkerClient:
        """A new connection for one test."""
        self._client = self.process.connect()
        return self._client

    def settle(self) -> None:
        """End the test's connection and wait until the worker is idle; if it never is, end it."""
        client, self._client = self._client, None
        if client is None or self._worker is None:
            return
        client.close()
        try:
            probe = self._worker.connect()
            probe.wait_for_stats(is_idle, "the worker to be idle")
            probe.close()
        except (BackplaneError, OSError):  # TimeoutError is one of these
            self.close()

    def close(self) -> None:
        """End the worker, if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def is_idle(stats: RunnerStats) -> bool:
    """Nothing runs, waits or owns memory."""
    return stats.running == stats.waiting == stats.used_tokens == 0
