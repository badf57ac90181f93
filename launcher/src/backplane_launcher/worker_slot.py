"""Keeping one worker alive: its state told to the servers, its hangs ended."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from backplane_core.backend import RunnerSpec
from backplane_core.control import (
    FromChild,
    Heartbeat,
    Progress,
    WorkerDown,
    WorkerLaunch,
    WorkerUp,
)
from backplane_core.errors import SetupError

from backplane_launcher.launch_documents import worker_document
from backplane_launcher.slot import SETUP_STATUS, House, Slot
from backplane_launcher.stall_watch import StallWatch

_log = logging.getLogger(__name__)

# While a model loads, native code may hold the interpreter for long; only a dead stop counts.
_LOADING_STALL_S: Final = 600.0


class WorkerSlot(Slot):
    """One worker. `on_progress` hears its progress for the terminal."""

    def __init__(
        self,
        name: str,
        house: House,
        *,
        backend: str,
        python: str,
        spec: RunnerSpec,
        on_up: Callable[[], None],
    ) -> None:
        super().__init__(name, house)
        self._backend = backend
        self._python = python
        self._spec = spec
        self._on_up = on_up
        self._watch: StallWatch | None = None
        self._said_reason: str | None = None
        self._ending = ""
        self._told_down = False
        self._watcher: asyncio.Task[None] | None = None

    def document(self) -> WorkerLaunch:
        """A worker's document; each attempt has a socket of its own."""
        return worker_document(
            self.house.settings,
            self._spec,
            worker_id=self.name,
            backend=self._backend,
            socket_path=str(self.house.run.path / f"{self.name}-{self.attempt}.sock"),
            control_path=str(self.house.control_path),
        )

    def command(self, document: Path) -> Sequence[str]:
        """The backend's own interpreter runs core's worker."""
        return [self._python, "-P", "-m", "backplane_core.worker", str(document)]

    def began(self) -> None:
        """Watch the new process."""
        self._said_reason = None
        self._told_down = False
        timeout_s = max(_LOADING_STALL_S, self.house.settings.worker_stall_timeout)
        self._watch = StallWatch(timeout_s, self._now())
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch_for_stalls())

    def said(self, message: FromChild) -> None:
        """Relay the worker's state; note its pulse."""
        match message:
            case Heartbeat(num_steps=num_steps, busy=busy):
                if self._watch is not None:
                    self._watch.beat(num_steps, busy=busy, now=self._now())
            case WorkerUp():
                self._watch = StallWatch(self.house.settings.worker_stall_timeout, self._now())
                self.came_up()
                self.house.control.tell_servers(message)
                self._on_up()
            case Progress():
                self.house.control.tell_servers(message)
            case WorkerDown(reason=reason):
                self._said_reason = reason  # told when the process has really ended
            case _:
                _log.warning("%s sent a %s, which is a server's", self.name, type(message).__name__)

    def reason(self, ending: str) -> str:
        """The worker's own words where it had any."""
        self._ending = ending
        if self._said_reason is not None:
            return self._said_reason
        return super().reason(ending)

    def died(self, reason: str, pause_s: float) -> None:
        """Tell the servers why."""
        super().died(reason, pause_s)
        again = f"it is started again in {pause_s:g} s"
        self._tell_down(f"{reason}; {again}", f"the worker {self._ending}; {again}")

    def lost(self, reason: str) -> None:
        """Tell the servers why."""
        super().lost(reason)
        self._tell_down(reason, f"the worker {self._ending}", final=True)

    def _give_up_if_not_set_up(self, reason: str) -> None:
        if not self.was_ever_up and self.child and self.child.status == SETUP_STATUS:
            raise SetupError(reason)

    def give_up_if_hopeless(self, reason: str) -> None:
        """Tell the servers before it is given up."""
        try:
            self._give_up_if_not_set_up(reason)
            super().give_up_if_hopeless(reason)
        except SetupError:
            summary = "the worker could not start; the launcher's output says why"
            self._tell_down(reason, summary, final=True)
            raise

    async def stop(self, grace_s: float, margin_s: float) -> None:
        """A worker that still loads has nothing to finish and cannot listen: kill it."""
        if self._watcher is not None:
            self._watcher.cancel()
        if not self.is_up.is_set():
            child = self.child
            self.kill()
            if child is not None:
                await child.wait_ended(margin_s)
            return
        await super().stop(grace_s, margin_s)

    def _tell_down(self, reason: str, summary: str, *, final: bool = False) -> None:
        if not self._told_down:
            self._told_down = True
            down = WorkerDown(worker_id=self.name, reason=reason, summary=summary, final=final)
            self.house.control.tell_servers(down)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _watch_for_stalls(self) -> None:
        interval_s = min(1.0, self.house.settings.worker_stall_timeout / 4)
        while True:
            before = self._now()
            await asyncio.sleep(interval_s)
            child, watch = self.child, self._watch
            if watch is None or child is None or child.status is not None:
                continue
            if self._now() - before > interval_s + self.house.settings.worker_stall_timeout / 2:
                watch.forgive(self._now())
            elif (verdict := watch.verdict(self._now())) is not None:
                _log.error("%s is %s; killing it (%s)", self.name, verdict, signal.SIGKILL.name)
                self._said_reason = verdict
                self._watch = None
                # Told first: servers end its requests without waiting for the kernel.
                again = "it is being replaced"
                self._tell_down(f"{verdict}; {again}", f"the worker was {verdict}; {again}")
                child.kill()
