"""A real worker process for tests, with the test in the launcher's place on the control socket."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from backplane_core.backend import RunnerSpec
from backplane_core.control import (
    FromChild,
    Heartbeat,
    Join,
    Progress,
    Shutdown,
    WorkerDown,
    WorkerLaunch,
    WorkerUp,
)
from backplane_core.testing.blocking_channel import BlockingChannel
from backplane_core.testing.worker_client import WorkerClient

_TICK_S = 0.05
_server_numbers = itertools.count()


class WorkerStartError(Exception):
    """The worker did not come up; `status` is its exit status, `down` its farewell, if any."""

    def __init__(self, status: int | None, down: WorkerDown | None, log: str) -> None:
        super().__init__(f"exit status {status}, {down}, log:\n{log}")
        self.status = status
        self.down = down


class ChildProcess(Protocol):
    """What is asked of `subprocess.Popen`, or of another way to start a worker."""

    @property
    def pid(self) -> int:
        """Its process id, and its group's."""
        ...

    def poll(self) -> int | None:
        """The exit status, if it has gone; of one that was killed, minus the signal."""
        ...

    def wait(self) -> int:
        """The exit status, once it has gone."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


class WorkerProcess:
    """One `python -m backplane_core.worker`, in a process group and folder of its own.

    Args:
        backend: the backend's name.
        spec: what to load.
        timeout_s: the most that starting, and any one wait of its clients, may take.
        python: the interpreter of the backend's environment.
        environment: added to this process's own.
    """

    def __init__(
        self,
        backend: str,
        spec: RunnerSpec,
        *,
        timeout_s: float,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.progress: list[Progress] = []
        self.heartbeats: list[Heartbeat] = []
        self.join: Join | None = None
        self.down: WorkerDown | None = None
        self._clients: list[WorkerClient] = []
        self._up = False
        # A short path: a Unix socket's may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="backplane-"))
        self.socket_path = str(self._folder / "worker.sock")
        control_path = str(self._folder / "control.sock")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(control_path)
        self._listener.listen(1)
        self._listener.settimeout(_TICK_S)
        self._control: BlockingChannel[FromChild] | None = None
        launch = WorkerLaunch(
            worker_id="worker-0",
            socket_path=self.socket_path,
            backend=backend,
            spec=spec,
            control_path=control_path,
        )
        document = self._folder / "worker.json"
        document.write_bytes(msgspec.json.encode(launch))
        self._log_path = self._folder / "worker.log"
        with self._log_path.open("wb") as log:
            self.process = self._spawn(python, document, log, {**os.environ, **(environment or {})})
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """What the worker has written."""
        return self._log_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def connect(self) -> WorkerClient:
        """A new connection, under a server id of its own."""
        server_id = f"kit{next(_server_numbers)}"
        client = WorkerClient(self.socket_path, server_id, self.timeout_s)
        self._clients.append(client)
        return client

    def observe(self, seconds: float) -> None:
        """Take in what the worker says on the control socket for that long."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0.0:
            self._read_control(remaining)

    def shut_down(self, grace_s: float) -> None:
        """Tell the worker, as the launcher would, to finish and go."""
        if self._control is not None:
            self._control.send(Shutdown(grace_s=grace_s))

    def wait(self) -> int:
        """The exit status, once it has gone.

        Raises:
            TimeoutError: it did not go.
        """
        self._until(lambda: not self.alive, "the worker to exit")
        while self._read_control(_TICK_S):
            pass  # the farewell may still be in the socket, and that not even accepted
        return self.process.wait()

    def pause(self) -> None:
        """Stop the process as if hung."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the worker, and nothing it may have started."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill the worker with all it started, and remove its folder."""
        for client in self._clients:
            client.close()
        with contextlib.suppress(ProcessLookupError):  # the whole group is gone already
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._listener.close()
        if self._control is not None:
            self._control.close()
        shutil.rmtree(self._folder)

    def _spawn(
        self, python: str, document: Path, log: BinaryIO, environment: dict[str, str]
    ) -> ChildProcess:
        return subprocess.Popen(  # noqa: S603 -- our own module, by the given Python
            [python, "-m", "backplane_core.worker", str(document)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    # ── the control socket ───────────────────────────────────────────────────────────────

    def _start(self) -> None:
        self._until(lambda: self._up or self.down is not None or not self.alive, "the worker")
        if not self._up:
            raise WorkerStartError(self.wait(), self.down, self.log)

    def _until(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.timeout_s
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {self.timeout_s:g} s in vain for {what}\n{self.log}")
            self._read_control(_TICK_S)

    def _read_control(self, timeout_s: float) -> bool:
        """Take in one message of the worker. False if none came."""
        try:
            if self._control is None:
                self._control = BlockingChannel(self._listener.accept()[0], FromChild)
            message = self._control.receive(max(timeout_s, 1e-3))
        except TimeoutError:
            return False
        except ConnectionError:
            message = None
        match message:
            case Join():
                self.join = message
            case Progress():
                self.progress.append(message)
            case Heartbeat():
                self.heartbeats.append(message)
            case WorkerUp():
                self._up = True
            case WorkerDown():
                self.down = message
            case _:
                time.sleep(min(timeout_s, _TICK_S))  # end of file: the exit status will follow
                return False
        return True
