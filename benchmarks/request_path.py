"""What a request costs once: requests a second, and processor time of the server and the worker.

`python benchmarks/request_path.py` starts a deployment of the echo backend, which computes nothing,
and drives each route in a closed loop over kept connections. `--also` measures another checkout in
turn with this one, round by round, and prints the ratios.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import uvloop

NEW_TOKENS = 8
QUESTION = "Tell me something about the weather in the mountains."
STARTS_WITHIN_S = 60.0
WARM_UP_S = 1.0
HERE = Path(__file__).resolve().parent.parent
SOURCES = ("core", "server", "launcher", "backends/llamacpp")
WHO = ("server", "helpers", "worker", "launcher", "client")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

_CHAT = {"model": "m", "messages": [{"role": "user", "content": QUESTION}]}
_TEXT = {"model": "m", "prompt": QUESTION}
_LENGTH = {"max_tokens": NEW_TOKENS, "ignore_eos": True, "temperature": 0}
_NATIVE = {"inputs": QUESTION, "parameters": {"max_new_tokens": NEW_TOKENS}}
# Name, path and body.
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("/generate", _NATIVE),
    "generate_stream": ("/generate_stream", _NATIVE),
    "completions": ("/v1/completions", {**_TEXT, **_LENGTH}),
    "completions stream": ("/v1/completions", {**_TEXT, **_LENGTH, "stream": True}),
    "chat": ("/v1/chat/completions", {**_CHAT, **_LENGTH}),
    "chat stream": ("/v1/chat/completions", {**_CHAT, **_LENGTH, "stream": True}),
    "health": ("/health", {}),  # the web edges and nothing behind them
}


class Client(asyncio.Protocol):
    """One kept connection that asks the same again as soon as the answer is whole.

    It reads no more of an answer than where it ends, so that the client costs little: the machine
    is the server's too.
    """

    def __init__(self, request: bytes, measured: "Measured") -> None:
        self._request = request
        self._measured = measured
        self._answer = b""
        self._asked = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not is_whole(self._answer):
            return
        self._measured.took_s.append(time.perf_counter() - self._asked)
        if not self._answer.startswith(b"HTTP/1.1 200"):
            self._measured.failed.append(self._answer)
        self._answer = b""
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._measured.over:
            self._measured.failed.append(b"the connection ended")

    def _ask(self) -> None:
        if self._measured.over:
            self._transport.close()
            return
        self._asked = time.perf_counter()
        self._transport.write(self._request)


def is_whole(answer: bytes) -> bool:
    """Whether an answer has come to its end."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    return body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])


@dataclasses.dataclass
class Measured:
    """Of one round: what each answer took, and what went wrong."""

    took_s: list[float] = dataclasses.field(default_factory=list)
    failed: list[bytes] = dataclasses.field(default_factory=list)
    over: bool = False


@dataclasses.dataclass
class Round:
    """Of one round: requests a second, a request's processor time in µs by `WHO`, and times."""

    per_second: float
    cpu_us: list[float]
    p50_ms: float
    p99_ms: float


def request_of(path: str, body: dict[str, Any], port: int) -> bytes:
    """A request as it goes over the wire."""
    data = json.dumps(body).encode() if body else b""
    lines = [
        f"{'POST' if body else 'GET'} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: request_path",
        "Accept: */*",
    ]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


class Deployment:
    """Launcher, servers and a worker that echoes, of one checkout."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self.launcher = [process.pid]
        children = {pid: _command_line(pid) for pid in _children(process.pid)}
        self.servers = [pid for pid, words in children.items() if "backplane_server" in words]
        self.helpers = [child for pid in self.servers for child in _children(pid)]
        self.workers = [pid for pid, words in children.items() if "backplane_core.worker" in words]

    async def drive(self, route: str, connections: int, seconds: float) -> Round:
        """Warm up, then measure for so long."""
        path, body = ROUTES[route]
        request = request_of(path, body, self.port)
        loop = asyncio.get_running_loop()
        measured = Measured()
        for _ in range(connections):
            await loop.create_connection(lambda: Client(request, measured), "127.0.0.1", self.port)
        await asyncio.sleep(WARM_UP_S)
        measured.took_s.clear()
        groups = (self.servers, self.helpers, self.workers, self.launcher, [os.getpid()])
        before = [cpu_s(group) for group in groups]
        begun = time.perf_counter()
        await asyncio.sleep(seconds)
        took_s = time.perf_counter() - begun
        times = sorted(measured.took_s)
        costs = [
            (cpu_s(group) - spent) / max(1, len(times)) * 1e6
            for group, spent in zip(groups, before, strict=True)
        ]
        measured.over = True
        await asyncio.sleep(0.2)
        if measured.failed:
            raise SystemExit(f"{route}: {measured.failed[0].decode(errors='replace')}")
        return Round(
            len(times) / took_s,
            costs,
            p50_ms=statistics.median(times) * 1e3,
            p99_ms=times[len(times) * 99 // 100] * 1e3,
        )


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def cpu_s(pids: list[int]) -> float:
    """Processor time of these processes."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / CLOCK_TICKS


@contextlib.contextmanager
def deployment(checkout: Path, arguments: list[str]) -> Generator[Deployment, None, None]:
    """One that runs the source of a checkout; its log is read by nobody, but written."""
    command = [str(Path(sys.executable).with_name("backplane")), "--hostname", "127.0.0.1"]
    command += ["--port", "0", "--model-id", "echo:path", "--backend", "echo", *arguments]
    source = [str(checkout / part / "src") for part in SOURCES]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(source)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            yield Deployment(process, _port_of(process, log.fileno()))
        finally:
            process.terminate()
            process.wait()


def _port_of(process: subprocess.Popen[bytes], log: int) -> int:
    """Wait for the launcher's word."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(rb"Connected: http://[^:]+:(\d+)", os.pread(log, 1 << 20, 0)):
            return int(found[1])
        time.sleep(0.05)
    raise SystemExit(f"it does not start:\n{os.pread(log, 1 << 20, 0).decode()}")


def report(results: dict[tuple[str, str], list[Round]]) -> Iterator[str]:
    """A table in Markdown: medians over the rounds."""
    names = ("requests/s", *(f"{who} µs" for who in WHO), "p50 ms", "p99 ms")
    yield f"| route | checkout | {' | '.join(names)} |"
    yield f"|---|---|{'---:|' * len(names)}"
    for (route, checkout), rounds in results.items():
        columns = zip(
            *((each.per_second, *each.cpu_us, each.p50_ms, each.p99_ms) for each in rounds),
            strict=True,
        )
        *counts, p50_ms, p99_ms = (statistics.median(column) for column in columns)
        counted = " | ".join(f"{value:,.0f}" for value in counts)
        yield f"| {route} | {checkout} | {counted} | {p50_ms:.2f} | {p99_ms:.2f} |"
    for route, (first, *others) in itertools.groupby(results, key=lambda key: key[0]):
        for other in others:
            ratios = [
                one.per_second / another.per_second
                for one, another in zip(results[first], results[other], strict=True)
            ]
            yield f"{route}: {first[1]} does {statistics.median(ratios):.2f}x what {other[1]} does"


async def measure(
    deployments: dict[str, Deployment], asked: argparse.Namespace
) -> dict[tuple[str, str], list[Round]]:
    """Every route on every deployment, round by round."""
    results: dict[tuple[str, str], list[Round]] = {
        (route, name): [] for route in asked.routes for name in deployments
    }
    for turn in range(asked.rounds):
        for route in asked.routes:
            # In turn, so that neither is always the one that comes after the other.
            for name in sorted(deployments, reverse=bool(turn % 2)):
                found = await deployments[name].drive(route, asked.connections, asked.seconds)
                results[route, name].append(found)
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES))
    parser.add_argument("--connections", type=int, default=32, help="requests at a time")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=1, help="of every route")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="checkouts to compare")
    parser.add_argument("arguments", nargs="*", help="the deployment's, after --")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        deployments = {
            checkout.name: stack.enter_context(deployment(checkout, asked.arguments))
            for checkout in (HERE, *asked.also)
        }
        results = uvloop.run(measure(deployments, asked))
    print("\n".join(report(results)))


if __name__ == "__main__":
    main()
