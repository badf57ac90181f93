"""How long the demo model takes from the command to an answer, part by part.

`python benchmarks/startup.py`; a part's time runs from the start of its process, which the kernel
notes in hundredths of a second.
"""

import argparse
import dataclasses
import http.client
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BACKPLANE = Path(sys.executable).with_name("backplane")
STARTS_WITHIN_S = 60.0
POLL_S = 0.005
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ROLES = {"server": "backplane_server", "worker": "backplane_core.worker"}


@dataclasses.dataclass
class Start:
    """Seconds after the command was executed, and of processor time up to `ready`."""

    server_began: float
    worker_began: float
    answered: float
    ready: float
    cpu: float

    def parts(self) -> dict[str, float]:
        """What the table shows, by name."""
        return {
            "command to server's start": self.server_began,
            "server's start to its first answer": self.answered - self.server_began,
            "server's start to worker's start (backends are asked)": self.worker_began
            - self.server_began,
            "worker's start to ready": self.ready - self.worker_began,
            "command to ready": self.ready,
            "processor time of all processes": self.cpu,
        }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def status_of(port: int) -> int | None:
    """The status of /health; None while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STARTS_WITHIN_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def processes(parent: int) -> Iterator[tuple[str, float, float]]:
    """Of `parent` and its children: command, monotonic start in seconds, processor seconds.

    Processor time includes that of children that have ended.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(folder.name) == parent or int(fields[1]) == parent:
            ticks = sum(int(field) for field in fields[11:15])
            yield command, int(fields[19]) / _TICKS_PER_S, ticks / _TICKS_PER_S


def start_once(arguments: list[str]) -> Start:
    """Start a deployment, wait until /health says 200, end it."""
    port = free_port()
    command = [str(BACKPLANE), "--hostname", "127.0.0.1", "--port", str(port), *arguments]
    # /proc counts since the boot, and so does this clock.
    begun = time.clock_gettime(time.CLOCK_BOOTTIME)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        answered = ready = 0.0
        while not ready:
            status = status_of(port)
            now = time.clock_gettime(time.CLOCK_BOOTTIME) - begun
            if status is not None and not answered:
                answered = now
            if status == http.HTTPStatus.OK:
                ready = now
            elif process.poll() is not None or now > STARTS_WITHIN_S:
                process.kill()
                raise SystemExit(f"it does not start:\n{process.communicate()[0].decode()}")
            else:
                time.sleep(POLL_S)
        seen = list(processes(process.pid))
    finally:
        process.terminate()
        process.communicate()
    began = {
        role: next(since - begun for command, since, _ in seen if module in command)
        for role, module in _ROLES.items()
    }
    return Start(
        server_began=began["server"],
        worker_began=began["worker"],
        answered=answered,
        ready=ready,
        cpu=sum(cpu for _, _, cpu in seen),
    )


def help_once() -> float:
    """Seconds that `backplane --help` takes."""
    begun = time.monotonic()
    subprocess.run([str(BACKPLANE), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begun


def row(name: str, values: list[float]) -> str:
    """A line of the table: median, least and most."""
    return f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=9, help="how often; one more warms up")
    parser.add_argument("arguments", nargs="*", help="the deployment's, after --")
    asked = parser.parse_args()
    starts = [start_once(asked.arguments) for _ in range(asked.starts + 1)][1:]
    helps = [help_once() for _ in range(asked.starts)]
    print(f"| seconds, {asked.starts} starts | median | least to most |")
    print("|---|---:|---:|")
    for name in starts[0].parts():
        print(row(name, [start.parts()[name] for start in starts]))
    print(row("`backplane --help`", helps))


if __name__ == "__main__":
    main()
