"""The worker's line to its launcher: introduces it, sends heartbeats, hears `Shutdown`.

Runs on the I/O thread. End-of-file means the launcher is dead, and the worker with it.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from backplane_core.control import Heartbeat, Join, Progress, Shutdown
from backplane_core.control_client import ControlConnection
from backplane_core.messages import Message
from backplane_core.version import PROTOCOL

_log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1.0
ORPHANED_STATUS: Final = 4


class LauncherLine:
    """One worker's line to its launcher."""

    def __init__(self, worker_id: str, connection: ControlConnection) -> None:
        self._worker_id = worker_id
        self._connection = connection
        # Until the engine runs, nothing is busy and nothing steps.
        self.pulse: Callable[[], tuple[int, bool]] = lambda: (0, False)
        self.shutdown: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, control_path: str, worker_id: str) -> "LauncherLine":
        """Connect and introduce this worker.

        Raises:
            UnavailableError: no launcher listens there.
        """
        join = Join(role="worker", member_id=worker_id, pid=os.getpid(), protocol=PROTOCOL)
        return cls(worker_id, await ControlConnection.connect(control_path, join))

    def send(self, message: Message) -> None:
        """Queue a message to the launcher."""
        self._connection.send(message)

    def progress(self, stage: str, fraction: float | None, detail: str) -> None:
        """Report what a long step is doing."""
        self.send(
            Progress(worker_id=self._worker_id, stage=stage, fraction=fraction, detail=detail)
        )

    async def beat(self) -> None:
        """Send heartbeats for ever."""
        while True:
            num_steps, busy = self.pulse()
            self.send(Heartbeat(worker_id=self._worker_id, num_steps=num_steps, busy=busy))
            await asyncio.sleep(HEARTBEAT_S)

    async def listen(self) -> None:
        """Hear the launcher until it is gone; then end this process at once."""
        async for message in self._connection:
            if isinstance(message, Shutdown) and not self.shutdown.done():
                self.shutdown.set_result(message.grace_s)
        _log.error("the launcher is gone: stopping")
        # The engine thread may be deep in native code; nothing is left to save.
        os._exit(ORPHANED_STATUS)

    async def close(self) -> None:
        """Send what is queued and close."""
        await self._connection.close()
