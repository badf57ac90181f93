"""A real launcher process, with what it writes and what its servers were told."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

HERE = Path(__file__).parent
# Nothing here takes so long. Whoever waits so long in vain has found an error, not a slow machine.
LIMIT_S = 30.0


class Launched:
    """Runs `python -m backplane_launcher ARGV` until the end of the `with`.

    `tuned` sets constants of the launcher for this run: "slot.MAX_START_FAILURES" to a value.
    `hostname` None leaves it to `argv` and `environ` where to listen.
    """

    def __init__(
        self,
        folder: Path,
        *argv: str,
        environ: dict[str, str] | None = None,
        tuned: dict[str, float] | None = None,
        hostname: str | None = "127.0.0.1",
    ) -> None:
        self.log = folder / "server.jsonl"
        self.runtime = folder / "run"
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        self.lines: list[str] = []
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BACKPLANE_", "HF_"))
        }
        listen = [] if hostname is None else ["--hostname", hostname]
        self._process = subprocess.Popen(
            [sys.executable, *_program(tuned or {}), *listen, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **inherited,
                "PYTHONPATH": str(HERE / "fake_server"),
                "FAKE_SERVER_LOG": str(self.log),
                "XDG_RUNTIME_DIR": str(self.runtime),
                **(environ or {}),
            },
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for_line(self, pattern: str, timeout_s: float = LIMIT_S) -> re.Match:
        return self.until(lambda: re.search(pattern, self.output), timeout_s, f"line {pattern!r}")

    def wait_for_event(self, name: str, count: int = 1, timeout_s: float = LIMIT_S) -> dict:
        def found():
            events = [event for event in self.events() if event["event"] == name]
            return events[count - 1] if len(events) >= count else None

        return self.until(found, timeout_s, f"event {name} ({count})")

    def until(self, question, timeout_s: float, what: str):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if answer := question():
                return answer
            time.sleep(0.02)
        raise AssertionError(f"no {what} within {timeout_s} s; output:\n{self.output}")

    def wait_connected(self) -> str:
        return self.wait_for_line(r"Connected: (http://\S+)")[1]

    def events(self) -> list[dict]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if line]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = LIMIT_S) -> int:
        status = self._process.wait(timeout_s)
        self._reader.join(timeout_s)
        return status

    def pids(self) -> list[int]:
        """Processes that descend from this launcher, whoever their parent is now.

        They are known by a variable that they inherited.
        """
        found = []
        needle = f"XDG_RUNTIME_DIR={self.runtime}\0".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in (os.getpid(), self.pid):
                continue
            with contextlib.suppress(OSError):
                if needle in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def worker_pid(self, name: str = "worker-0") -> int:
        return self.until(lambda: self._pid_with(f"/{name}-"), LIMIT_S, f"process of {name}")

    def server_pid(self, name: str = "server-0") -> int:
        return self.until(lambda: self._pid_with(f"/{name}-"), LIMIT_S, f"process of {name}")

    def _pid_with(self, text: str) -> int | None:
        for pid in self.pids():
            with contextlib.suppress(OSError):
                if text.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None


def _program(tuned: dict[str, float]) -> list[str]:
    if not tuned:
        return ["-m", "backplane_launcher"]
    modules = sorted({name.partition(".")[0] for name in tuned})
    return [
        "-c",
        f"import sys; from backplane_launcher import {', '.join(modules)}; "
        + "".join(f"{name} = {value!r}; " for name, value in tuned.items())
        + "from backplane_launcher.cli import main; sys.exit(main())",
    ]
