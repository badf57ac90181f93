"""A real `backplane` started as a user starts it, and what a test may ask of its processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

START_TIMEOUT_S = 60.0
BACKPLANE = Path(sys.executable).parent / "backplane"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_until(condition: Callable[[], object], within_s: float, what: str) -> float:
    """Wait for `condition`; returns the seconds it took."""
    started = time.monotonic()
    while not condition():
        elapsed = time.monotonic() - started
        assert elapsed < within_s, f"not within {within_s} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


def processes_below(pid: int) -> dict[int, str]:
    """Every descendant of a process: pid → command line."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z":
                continue
            parents[int(entry.name)] = int(fields[1])
            commands[int(entry.name)] = (
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            )
    below: set[int] = set()
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - below
        below |= frontier
    return {child: commands[child] for child in below}


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Deployment:
    """One running `backplane` and its output."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def status(self, path: str = "/health") -> int:
        """The HTTP status of a GET, 0 while nobody listens."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.url + path, timeout=5).status_code
        return 0

    def wait_ready(self, within_s: float = START_TIMEOUT_S) -> float:
        def ready() -> bool:
            assert self.process.poll() is None, self.output
            return self.status() == 200

        try:
            return wait_until(ready, within_s, "ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from error

    def workers(self) -> list[int]:
        """Pids of the worker processes."""
        below = processes_below(self.process.pid)
        return [pid for pid, command in below.items() if "backplane_core.worker" in command]

    def metric(self, name: str) -> float:
        """The sum of a metric's samples of exactly that name."""
        text = httpx.get(f"{self.url}/metrics", timeout=5).text
        values = [
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        ]
        assert values, f"no {name} in\n{text}"
        return sum(values)

    def stop(self, signum: signal.Signals = signal.SIGTERM, within_s: float = 30.0) -> int:
        """Send a signal and wait; the exit status."""
        self.process.send_signal(signum)
        status = self.process.wait(within_s)
        self._reader.join(5)
        return status


@contextlib.contextmanager
def deployed(*arguments: str, wait: bool = True, **environment: str) -> Iterator[Deployment]:
    """Run `backplane ARGUMENTS` on a free port; whatever is left of it is killed at the end."""
    port = free_port()
    process = subprocess.Popen(
        [str(BACKPLANE), "--hostname", "127.0.0.1", "--port", str(port), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    deployment = Deployment(process, port)
    try:
        if wait:
            deployment.wait_ready()
        yield deployment
    finally:
        family = [process.pid, *processes_below(process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
