"""What the workers are doing, as `/health` and every 503 tell it.

Fed by the launcher's messages and by the worker pool; knows nothing of connections.
"""

import logging
from typing import Literal

import msgspec
from backplane_core.control import Progress, WorkerDown

_log = logging.getLogger(__name__)

WorkerPhase = Literal["loading", "ready", "down", "failed"]


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One worker: `stage`, `fraction` (0…1 where known) and `detail` while it loads."""

    worker_id: str
    phase: WorkerPhase
    stage: str = ""
    fraction: float | None = None
    detail: str = ""


class ReadinessReport(msgspec.Struct, frozen=True, kw_only=True):
    """All workers at one moment.

    Attributes:
        ready: whether a request can be answered.
        draining: whether the server is shutting down.
        stage, fraction, detail: of the worker that is nearest to being ready.
    """

    ready: bool
    draining: bool
    stage: str
    fraction: float | None
    detail: str
    workers: list[WorkerReport]

    @property
    def sentence(self) -> str:
        """One line for people."""
        if self.draining:
            return "the server is shutting down"
        if self.ready:
            return "ready"
        share = "" if self.fraction is None else f" {self.fraction:.0%}"
        detail = f": {self.detail}" if self.detail else ""
        return f"the model is not ready: {self.stage}{share}{detail}"


class Readiness:
    """Keeps the last word on every worker."""

    def __init__(self) -> None:
        self._workers: dict[str, WorkerReport] = {}
        self.draining = False

    def progress(self, message: Progress) -> None:
        """A worker reports how far it is."""
        self._workers[message.worker_id] = WorkerReport(
            worker_id=message.worker_id,
            phase="loading",
            stage=message.stage,
            fraction=message.fraction,
            detail=message.detail,
        )

    def up(self, worker_id: str) -> None:
        """A worker answers."""
        self._workers[worker_id] = WorkerReport(worker_id=worker_id, phase="ready", stage="ready")

    def down(self, message: WorkerDown) -> None:
        """A worker is gone, for good if `final`. Clients read the summary, the log the reason."""
        if message.reason != message.summary:
            level = logging.INFO if self.draining else logging.WARNING
            _log.log(level, "worker %s is down: %s", message.worker_id, message.reason)
        self._workers[message.worker_id] = WorkerReport(
            worker_id=message.worker_id,
            phase="failed" if message.final else "down",
            stage="failed" if message.final else "restarting",
            detail=message.summary,
        )

    def report(self) -> ReadinessReport:
        """The state now."""
        workers = list(self._workers.values())
        order: dict[WorkerPhase, int] = {"ready": 0, "loading": 1, "down": 2, "failed": 3}
        nearest = min(workers, key=lambda worker: order[worker.phase], default=None)
        ready = nearest is not None and nearest.phase == "ready" and not self.draining
        return ReadinessReport(
            ready=ready,
            draining=self.draining,
            stage=nearest.stage if nearest else "starting",
            fraction=nearest.fraction if nearest else None,
            detail=nearest.detail if nearest else "waiting for a worker",
            workers=workers,
        )
