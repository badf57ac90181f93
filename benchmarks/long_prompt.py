"""A prompt of 4,000 tokens arrives among 16 streams that decode: how their gaps grow.

`python -m benchmarks.long_prompt`: gaps between tokens while nobody's prompt is computed, and while
the long one is; beside them the time that one chunk of a prompt takes among them.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Final

import uvloop
from backplane_launcher.bench.client import Client
from backplane_launcher.bench.comparison import order_of, ratios_at
from backplane_launcher.bench.contest import Contest
from backplane_launcher.bench.plan import Plan, make_plan
from backplane_launcher.bench.reply import Reply
from backplane_launcher.bench.statistics import Distribution
from backplane_launcher.bench.table import grid, number
from backplane_launcher.settings.bench import BenchSettings

from benchmarks.contenders import OURS, Server, backplane, llama_server
from benchmarks.random_model import gguf_of
from benchmarks.rounds import INTERRUPTED, conditions, parser, ratio_cell, started

STREAMS, PROMPT, NEW, LONG = 16, 64, 112, 4000
_MS: Final = 1000.0
_SETTLED: Final = 24  # tokens after which all streams decode, and the long prompt is sent
_COLUMNS: Final = ("before p50", "before max", "during p50", "during p99", "during max", "TTFT")


def _plan(prompt: int, new: int, seed: int) -> Plan:
    settings = BenchSettings(
        seed=seed, prompt_length=str(prompt), output_length=str(new), extra='{"temperature": 0}'
    )
    return make_plan(settings)


async def _send(client: Client, plan: Plan, place: int, reply: Reply) -> None:
    ask = plan.workload.conversation(place).ask()
    assert ask is not None
    await client.send(ask, reply)
    if reply.failure:
        raise SystemExit(f"a request failed: {reply.message}")


async def once(running: Contest, name: str, seed: int) -> dict[str, float]:
    """One long prompt among the streams: gaps in milliseconds, and the long one's first token."""
    streams, long = _plan(PROMPT, NEW, seed), _plan(LONG, 8, seed)
    async with running.at(name, streams) as (client, _):
        replies = [Reply(started=perf_counter()) for _ in range(STREAMS)]
        async with asyncio.TaskGroup() as under_way:
            for place, reply in enumerate(replies):
                under_way.create_task(_send(client, streams, place, reply))
            # The client tells nobody of arrivals.
            while min(len(reply.arrivals) for reply in replies) < _SETTLED:  # noqa: ASYNC110 -- above
                await asyncio.sleep(0.001)
            newcomer = Reply(started=perf_counter())
            await _send(client, long, STREAMS, newcomer)
    begun = max(reply.arrivals[0] for reply in replies)
    first = newcomer.arrivals[0]
    before = _gaps(replies, begun, newcomer.started)
    during = _gaps(replies, newcomer.started, first)
    if before is None or during is None:
        raise SystemExit("the streams ended before the long prompt's first token")
    return {
        "before p50": before.p50,
        "before max": before.max,
        "during p50": during.p50,
        "during p99": during.p99,
        "during max": during.max,
        "TTFT": _MS * (first - newcomer.started),
    }


def _gaps(replies: Sequence[Reply], start: float, end: float) -> Distribution | None:
    """Of gaps that end between two moments."""
    return Distribution.of(
        (
            later - earlier
            for reply in replies
            for earlier, later in pairwise(reply.arrivals)
            if start < later <= end and earlier >= start - 1.0
        ),
        _MS,
    )


async def measure(servers: Sequence[Server], num_rounds: int) -> dict[str, list[dict[str, float]]]:
    """Every server in every round; the other stands idle."""
    found: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    async with started(servers) as running:
        for name in found:
            await once(running, name, 10_000)  # warms up
        for round_ in range(num_rounds):
            for name in order_of(list(found), round_):
                figures = await once(running, name, 1 + round_)
                found[name].append(figures)
                told = f"first token after {figures['TTFT'] / _MS:.1f} s"
                print(f"round {round_ + 1}, {name}: {told}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """The command line."""
    asked = parser(__doc__).parse_args()
    model = gguf_of("125m-long")
    servers = [backplane(model), llama_server(model)]
    try:
        found = uvloop.run(measure(servers, asked.rounds))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise SystemExit(INTERRUPTED) from None
    print(f"{conditions()}; {asked.rounds} rounds; milliseconds\n")
    rows = [["", *_COLUMNS]]
    for name, rounds in found.items():
        cells = (number(median(one[column] for one in rounds)) for column in _COLUMNS)
        rows.append([name, *cells])
    measured = {(name, round_): own for name in found for round_, own in enumerate(found[name])}
    ratios = {(ratio.other, ratio.figure): ratio for ratio in ratios_at("", measured, OURS)}
    rows += [
        [f"{OURS} to {other}", *(ratio_cell(ratios.get((other, column))) for column in _COLUMNS)]
        for other in found
        if other != OURS
    ]
    print(grid(rows))
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
