"""What a token costs the front end: streams of one token a step, one event a token.

`python benchmarks/front_end.py` starts a deployment of the echo backend, which sleeps from step to
step, keeps so many streams going, and prints the server's processor time by token, the time from a
token to the next, and whether the streams were held: every token, and the slowest hundredth within
5 ms of the step. Then what one stream waits for its first token where steps take no time.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import os
import statistics
import time
from array import array
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import uvloop
from request_path import HERE, Deployment, deployment, request_of

LATE_S = 0.005
SPREAD_S = 1.0
SETTLE_S = 1.0
NUM_FIRST_TOKENS = 300
_TEXT = "some words to be said again; " * 64
NUM_TOKENS = len(_TEXT)  # the echo has no more to say where a client cannot make it go on
_LENGTH = {"max_tokens": NUM_TOKENS, "ignore_eos": True, "temperature": 0, "stream": True}
# Name, path and body.
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "native": (
        "/generate_stream",
        {"inputs": _TEXT, "parameters": {"max_new_tokens": NUM_TOKENS}},
    ),
    "completions": ("/v1/completions", {"model": "m", "prompt": _TEXT, **_LENGTH}),
    "completions, logprobs": (
        "/v1/completions",
        {"model": "m", "prompt": _TEXT, **_LENGTH, "logprobs": 1},
    ),
    "chat": (
        "/v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": _TEXT}], **_LENGTH},
    ),
}


@dataclasses.dataclass
class Window:
    """What arrived while it was open: tokens, reads, and seconds from an event to the next."""

    num_tokens: int = 0
    num_reads: int = 0
    gaps_s: "array[float]" = dataclasses.field(default_factory=lambda: array("d"))
    is_open: bool = False
    faults: list[bytes] = dataclasses.field(default_factory=list[bytes])


class Stream(asyncio.Protocol):
    """One stream. It looks for events' beginnings and no further, to cost little."""

    def __init__(self, request: bytes, window: Window, first: "asyncio.Future[float]") -> None:
        self.first = first
        self._request = request
        self._window = window
        self._last_s = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        num_events = data.count(b"data: ")
        if not num_events:
            if not data.startswith(b"HTTP/1.1 200"):
                self._window.faults.append(data)
            return
        if not self.first.done():
            self.first.set_result(now)
        window = self._window
        if window.is_open:
            window.num_tokens += num_events
            window.num_reads += 1
            window.gaps_s.append(now - self._last_s)
            for _ in range(num_events - 1):
                window.gaps_s.append(0.0)
        self._last_s = now

    def connection_lost(self, exc: Exception | None) -> None:
        if self._window.is_open:
            self._window.faults.append(b"a stream ended")

    def close(self) -> None:
        """Leave."""
        self._transport.abort()


@dataclasses.dataclass
class Found:
    """Of one round. µs of processor time a token, and ms from a token to the next."""

    per_second: float
    server_us: float
    worker_us: float
    client_us: float
    per_read: float
    p50_ms: float
    p99_ms: float
    held: bool


def cpu_s(pids: list[int]) -> float:
    """Processor time of all threads of these processes, to the nanosecond: a token takes little."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


async def stream(
    served: Deployment, route: str, num_streams: int, *, seconds: float, step_s: float
) -> Found:
    """Begin so many streams, spread over a while, and look at them for so long."""
    path, body = ROUTES[route]
    request = request_of(path, body, served.port)
    window = Window()
    loop = asyncio.get_running_loop()
    streams: list[Stream] = []
    for _ in range(num_streams):
        first: asyncio.Future[float] = loop.create_future()
        _, each = await loop.create_connection(
            lambda: Stream(request, window, first),  # noqa: B023 -- called at once
            "127.0.0.1",
            served.port,
        )
        streams.append(each)
        await asyncio.sleep(SPREAD_S / num_streams)
    await asyncio.gather(*(each.first for each in streams))
    await asyncio.sleep(SETTLE_S)
    groups = (served.servers, served.workers, [os.getpid()])
    before = [cpu_s(group) for group in groups]
    begun = time.perf_counter()
    window.is_open = True
    await asyncio.sleep(seconds)
    window.is_open = False
    took_s = time.perf_counter() - begun
    spent = [cpu_s(group) - earlier for group, earlier in zip(groups, before, strict=True)]
    for each in streams:
        each.close()
    await asyncio.sleep(0.5)
    if window.faults:
        raise SystemExit(f"{route}: {window.faults[0].decode(errors='replace')}")
    gaps = sorted(window.gaps_s)
    costs = [seconds_spent / max(1, window.num_tokens) * 1e6 for seconds_spent in spent]
    p99_s = gaps[len(gaps) * 99 // 100]
    is_all = window.num_tokens >= 0.99 * num_streams * took_s / step_s
    return Found(
        window.num_tokens / took_s,
        *costs,
        per_read=window.num_tokens / max(1, window.num_reads),
        p50_ms=statistics.median(gaps) * 1e3,
        p99_ms=p99_s * 1e3,
        held=is_all and p99_s <= step_s + LATE_S,
    )


async def first_tokens(served: Deployment) -> list[float]:
    """Seconds from connecting to the first token, one request at a time."""
    path, body = ROUTES["completions"]
    request = request_of(path, {**body, "prompt": "Say it.", "max_tokens": 4}, served.port)
    loop = asyncio.get_running_loop()
    took: list[float] = []
    for _ in range(NUM_FIRST_TOKENS):
        first: asyncio.Future[float] = loop.create_future()
        begun = time.perf_counter()
        _, each = await loop.create_connection(
            lambda: Stream(request, Window(), first),  # noqa: B023 -- called at once
            "127.0.0.1",
            served.port,
        )
        took.append(await first - begun)
        each.close()
    return sorted(took)


def report(results: dict[tuple[str, int, str], list[Found]]) -> Iterator[str]:
    """A table in Markdown: medians over the rounds."""
    yield (
        "| route | streams | checkout | tokens/s | server µs | worker µs | client µs | a read "
        "| p50 ms | p99 ms | held |"
    )
    yield "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---|"
    for (route, num_streams, name), rounds in results.items():
        columns = zip(*map(dataclasses.astuple, rounds), strict=True)
        per_second, *costs, per_read, p50_ms, p99_ms, held = map(statistics.median, columns)
        yield (
            f"| {route} | {num_streams} | {name} | {per_second:,.0f} "
            + "".join(f"| {cost:.1f} " for cost in costs)
            + f"| {per_read:.2f} | {p50_ms:.2f} | {p99_ms:.2f} | {'yes' if held else 'no'} |"
        )


async def measure(
    served: dict[str, Deployment], asked: argparse.Namespace
) -> dict[tuple[str, int, str], list[Found]]:
    """Every route and number of streams on every checkout, round by round."""
    results: dict[tuple[str, int, str], list[Found]] = {
        (route, num, name): [] for route in asked.routes for num in asked.streams for name in served
    }
    for turn in range(asked.rounds):
        for route in asked.routes:
            for num in asked.streams:
                # In turn, so that neither is always the one that comes after the other.
                for name in sorted(served, reverse=bool(turn % 2)):
                    found = await stream(
                        served[name], route, num, seconds=asked.seconds, step_s=asked.step
                    )
                    results[route, num, name].append(found)
    return results


@contextlib.contextmanager
def deployments(
    asked: argparse.Namespace, *arguments: str
) -> Generator[dict[str, Deployment], None, None]:
    """One of every checkout."""
    room = ["--max-concurrent-requests", "2048", "--echo.max-sequences", "1024"]
    with contextlib.ExitStack() as stack:
        yield {
            checkout.name: stack.enter_context(deployment(checkout, [*room, *arguments]))
            for checkout in (HERE, *asked.also)
        }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES))
    parser.add_argument("--streams", nargs="+", type=int, default=[256])
    parser.add_argument("--step", type=float, default=0.02, help="seconds from a token to the next")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=1, help="of every route and number")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="checkouts to compare")
    asked = parser.parse_args()
    with deployments(asked, "--echo.step-seconds", str(asked.step)) as served:
        print("\n".join(report(uvloop.run(measure(served, asked)))))
    with deployments(asked) as served:
        for name, each in served.items():
            took = uvloop.run(first_tokens(each))
            p50_ms, p99_ms = statistics.median(took) * 1e3, took[len(took) * 99 // 100] * 1e3
            print(f"{name}: first token of one stream p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms")


if __name__ == "__main__":
    main()
