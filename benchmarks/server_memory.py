"""What a server keeps of requests that are over: its memory while it answers very many.

`python benchmarks/server_memory.py` starts a deployment of the echo backend and answers 100,000
requests, some of each kind: whole and streamed answers, errors of the client's, names and paths
that no two requests share, and clients that leave in the midst. It prints the resident memory
after each tenth of them.
"""

import argparse
import asyncio
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop
from request_path import HERE, ROUTES, deployment, is_whole, request_of

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TENTHS = 10
# Of a hundred requests so many are of each route; five more are unlike all others.
SHARES = {
    "generate": 50,
    "generate_stream": 15,
    "completions": 10,
    "completions stream": 5,
    "chat": 10,
    "chat stream": 5,
}


def requests(port: int) -> Iterator[tuple[bytes, bool]]:
    """What is asked, and whether the client stays for the answer."""
    usual = [
        (request_of(*ROUTES[route], port), True)
        for route, count in SHARES.items()
        for _ in range(count)
    ]
    native, chat = ROUTES["generate"], ROUTES["chat stream"]
    for number in itertools.count():
        yield from usual
        yield request_of(native[0], {**native[1], f"unknown_{number}": number}, port), True
        yield request_of(native[0], {"inputs": ""}, port), True
        yield request_of(f"/none/{number}", {"inputs": "x"}, port), True
        yield request_of(chat[0], {**chat[1], "model": f"name-{number}"}, port), True
        yield request_of(*chat, port), False


async def ask(port: int, source: Iterator[tuple[bytes, bool]]) -> None:
    """One client after another, each with a connection of its own until it leaves."""
    connection = None
    for request, stays in source:
        if connection is None:
            connection = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = connection
        writer.write(request)
        answer = b""
        while stays and not is_whole(answer):
            data = await reader.read(1 << 16)
            if not data:
                raise SystemExit(f"the connection ended: {answer!r}")
            answer += data
        if not stays:
            await reader.read(1)  # it has begun
            writer.close()
            connection = None
    if connection is not None:
        connection[1].close()


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


async def measure(port: int, server: int, asked: argparse.Namespace) -> None:
    """Print the memory as it goes."""
    source = requests(port)
    share = asked.requests // TENTHS
    print("| requests | resident MiB | since the one before, KiB | requests/s |")
    print("|---:|---:|---:|---:|")
    before = resident_bytes(server)
    print(f"| 0 | {before / 2**20:.1f} | | |")
    for tenth in range(TENTHS):
        begun = time.perf_counter()
        part = itertools.islice(source, share)
        await asyncio.gather(*(ask(port, part) for _ in range(asked.connections)))
        per_second = share / (time.perf_counter() - begun)
        now = resident_bytes(server)
        grown = (now - before) / 1024
        print(
            f"| {(tenth + 1) * share:,} | {now / 2**20:.1f} | {grown:+,.0f} | {per_second:,.0f} |"
        )
        before = now


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=32, help="requests at a time")
    parser.add_argument("arguments", nargs="*", help="the deployment's, after --")
    asked = parser.parse_args()
    with deployment(HERE, asked.arguments) as running:
        uvloop.run(measure(running.port, running.servers[0], asked))


if __name__ == "__main__":
    main()
