"""All servers and workers of one launcher: start, relay, stop in order, fail as one."""

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from backplane_core.backend import RunnerSpec
from backplane_core.control import FromChild, Join, Progress

from backplane_launcher.control_server import ControlServer
from backplane_launcher.run_directory import RunDirectory
from backplane_launcher.server_slot import ServerSlot
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.slot import House, Slot
from backplane_launcher.worker_slot import WorkerSlot

_log = logging.getLogger(__name__)

# Beyond the grace period, what a process gets to write its last words and leave.
_MARGIN_S: Final = 5.0
_WORKER_GRACE_S: Final = 2.0


class Supervisor:
    """Owns every child. `failed` resolves with the error that ends the service for good."""

    def __init__(
        self, settings: LaunchSettings, run: RunDirectory, environ: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._control = ControlServer(self)
        self._house = House(settings=settings, control=self._control, run=run, environ=environ)
        self._servers: list[ServerSlot] = []
        self._workers: list[WorkerSlot] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.serving = asyncio.Event()
        self._stopping = False

    @property
    def is_up(self) -> bool:
        """Whether at this moment some server and some worker say that they serve."""
        return any(slot.is_up.is_set() for slot in self._servers) and any(
            slot.is_up.is_set() for slot in self._workers
        )

    async def start_servers(self, model_id: str, listening: socket.socket) -> None:
        """Open the control socket and start the servers, before there is any worker."""
        await self._control.start(self._house.control_path)
        self._servers = [
            ServerSlot(
                f"server-{index}",
                self._house,
                model_id=model_id,
                listen_fd=listening.fileno(),
                port=listening.getsockname()[1],
                on_up=self._check_serving,
            )
            for index in range(self._settings.num_servers)
        ]
        self._run(self._servers)

    def start_workers(self, backend: str, python: str, spec: RunnerSpec) -> None:
        """Start the replicas."""
        self._workers = [
            WorkerSlot(
                worker_id(index),
                self._house,
                backend=backend,
                python=python,
                spec=spec,
                on_up=self._check_serving,
            )
            for index in range(self._settings.num_replicas)
        ]
        self._run(self._workers)

    def report(self, stage: str, fraction: float | None = None, detail: str = "") -> None:
        """Tell the servers what goes on before there are workers to say it."""
        self._control.tell_servers(
            Progress(worker_id=worker_id(0), stage=stage, fraction=fraction, detail=detail)
        )

    async def stop(self, grace_s: float) -> None:
        """Servers finish what is in flight within `grace_s`; then the workers end."""
        self._stopping = True
        for slot in (*self._servers, *self._workers):
            slot.start_no_more()
        await asyncio.gather(*(slot.stop(grace_s, _MARGIN_S) for slot in self._servers))
        if self._workers:
            _log.info("the servers have ended; now the workers")
        await asyncio.gather(*(slot.stop(_WORKER_GRACE_S, _MARGIN_S) for slot in self._workers))
        self._finish()

    async def kill(self) -> None:
        """End everything at once."""
        self._stopping = True
        for slot in (*self._servers, *self._workers):
            slot.kill()
        children = [slot.child for slot in (*self._servers, *self._workers) if slot.child]
        await asyncio.gather(*(child.wait_ended(_MARGIN_S) for child in children))
        self._finish()

    # ── what children say ────────────────────────────────────────────────────────────────

    def joined(self, join: Join) -> bool:
        """Whether `join` comes from a process that a slot started."""
        slot = self._slot_of(join)
        if slot is not None:
            slot.joined()
        return slot is not None

    def said(self, join: Join, message: FromChild) -> None:
        """Hand a message to its slot; one of a process already replaced is dropped."""
        slot = self._slot_of(join)
        if slot is None:
            _log.debug("dropped a %s of a process that is gone", type(message).__name__)
            return
        slot.said(message)

    def _slot_of(self, join: Join) -> Slot | None:
        slots = self._servers if join.role == "server" else self._workers
        return next((slot for slot in slots if slot.owns(join)), None)

    # ── running ──────────────────────────────────────────────────────────────────────────

    def _run(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            task = asyncio.create_task(slot.keep_running(), name=slot.name)
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._stopping or self.failed.done():
            return
        replicas = {slot.name for slot in self._workers}
        others = sorted(replicas & {pending.get_name() for pending in self._tasks})
        if task.get_name() in replicas and others:
            _log.error("%s is given up, %s goes on: %s", task.get_name(), ", ".join(others), error)
        else:
            self.failed.set_exception(error)

    def _check_serving(self) -> None:
        if self.is_up:
            self.serving.set()

    def _finish(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._control.close()


def worker_id(index: int) -> str:
    """The name of replica `index`."""
    return f"worker-{index}"
