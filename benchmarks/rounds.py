"""Paired rounds: each round measures every contender at every task, to and fro, and neighbouring
measurements are compared. Servers are started once and stand idle while others are measured.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import io
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop
from backplane_core.version import __version__
from backplane_launcher.bench.comparison import Ratio, compared, order_of, ratios_at
from backplane_launcher.bench.contest import Contender, Contest
from backplane_launcher.bench.plan import make_plan
from backplane_launcher.bench.processes import processes_at
from backplane_launcher.bench.report import LevelResult, RequestFigures, this_machine
from backplane_launcher.bench.started_server import StartOrder
from backplane_launcher.bench.table import grid, number
from backplane_launcher.settings.bench import BenchSettings

from benchmarks import peak_memory
from benchmarks.contenders import OURS, Ceiling, Server
from benchmarks.peers.places import ROOT, wheel_builder

_START_LIMIT_S: Final = 300.0
_BUSY_IDLER: Final = 0.05
_MIB: Final = 2**20
INTERRUPTED: Final = 130
"""Status of who was told to end, by Ctrl-C or SIGTERM, as `backplane bench` has it."""
Measured = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A row: what is asked.

    Attributes:
        settings: those of `backplane bench`, but for the seed, which is the round's.
        among: who is asked; None is everyone.
        fields: what goes into the requests to the server of that name.
        repeats: the task before whose very prompts it sends; else it has its own.
    """

    name: str
    settings: BenchSettings
    ceiling: Ceiling | None = None
    among: frozenset[str] | None = None
    repeats: str | None = None
    fields: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict[str, Mapping[str, Any]]
    )

    def takes(self, name: str) -> bool:
        """Whether this contender is asked."""
        return self.among is None or name in self.among


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """One contender's figures for one task in one round."""

    round: int
    task: str
    name: str
    figures: Measured


class Turns(list[Turn]):
    """All turns of all rounds, or where it `ended_early`, those of the rounds that were whole."""

    ended_early = False


# ── measuring ────────────────────────────────────────────────────────────────────────────────


def contest(servers: Sequence[Server], tasks: Sequence[Task], num_rounds: int) -> Turns:
    """All rounds, or those that were whole when told to end; what happens is told.

    Progress goes to standard error. Without a whole round, it ends the process.
    """
    turns = Turns()

    async def run() -> None:
        async with started(servers, tasks[0].settings) as running:
            await _measure(running, servers, tasks, num_rounds, turns)

    try:
        uvloop.run(run())
    except (asyncio.CancelledError, KeyboardInterrupt):
        num_whole = len(turns) // sum(len(_names(task, servers)) for task in tasks)
        if not num_whole:
            raise SystemExit(INTERRUPTED) from None
        _say(f"told to end after {num_whole} rounds")
        turns[:] = [turn for turn in turns if turn.round < num_whole]
        turns.ended_early = True
    return turns


@contextlib.asynccontextmanager
async def started(
    servers: Sequence[Server], settings: BenchSettings | None = None
) -> AsyncGenerator[Contest, None]:
    """Start all, and at the end stop them. Told to end, the task at hand is cancelled.

    Each must answer one short request, which is of the kind that `settings` asks for.
    """
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    contenders = [
        Contender(name=server.name, order=StartOrder(name=server.name, command=server.command))
        for server in servers
    ]
    usual = settings or BenchSettings()
    short = BenchSettings(
        seed=os.getpid(),
        prompt_length="64",
        prompts=usual.prompts,
        stop_at_end=usual.stop_at_end,
    )
    first = make_plan(short)
    # A line for each turn takes the place of the progress of `backplane bench`.
    silence = io.StringIO()
    async with Contest(contenders, silence, keep=True, start_timeout_s=_START_LIMIT_S) as running:
        for server in servers:
            _say(f"starting {server.name}")
            async with running.at(server.name, first) as (client, readiness):
                peak = peak_memory.peak_bytes(processes_at(client.address.port)) / _MIB
                if readiness is not None:
                    _say(
                        f"{server.name} was ready after {readiness.ready_s:.1f} s, "
                        f"{peak:,.0f} MiB at its peak"
                    )
        yield running


async def _measure(
    running: Contest,
    servers: Sequence[Server],
    tasks: Sequence[Task],
    num_rounds: int,
    turns: list[Turn],
) -> None:
    by_name = {server.name: server for server in servers}
    places = {task.name: place for place, task in enumerate(tasks)}
    for round_ in range(num_rounds):
        for task in tasks:
            for name in order_of(_names(task, servers), round_):
                if task.ceiling and name == task.ceiling.name:
                    await running.at_rest()
                    figures = await task.ceiling.measure()
                else:
                    place = places[task.repeats or task.name]
                    figures = await _ask(running, by_name[name], task, round_, place)
                turns.append(Turn(round=round_, task=task.name, name=name, figures=figures))
                rate = figures.get("output tok/s", 0.0)
                _say(f"round {round_ + 1}, {task.name}, {name}: {rate:.1f} tok/s")


def _names(task: Task, servers: Sequence[Server]) -> list[str]:
    """Who has a turn at it in every round."""
    takers = [server.name for server in servers if task.takes(server.name)]
    return [task.ceiling.name, *takers] if task.ceiling else takers


async def _ask(running: Contest, server: Server, task: Task, round_: int, place: int) -> Measured:
    fields = {**server.fields, **task.fields.get(server.name, {})}
    # Every round has prompts of its own, the same ones for every server.
    settings = dataclasses.replace(
        task.settings, seed=1 + round_, warmup=0, extra=json.dumps(fields)
    )
    plan = make_plan(settings)
    async with running.at(server.name, plan) as (client, _):
        port = client.address.port
    peak_memory.begin(processes_at(port))
    turn = await running.turn(server.name, round_, plan, first=1000 * place)
    peak = peak_memory.peak_bytes(processes_at(port))
    (level,) = turn.levels
    if level.figures.failures:
        raise SystemExit(f"{server.name} failed: {level.figures.failures[0].message}")
    if turn.idle_cpu > _BUSY_IDLER:
        _say(f"the others took {turn.idle_cpu:.0%} of a core meanwhile")
    found = figures_by_name(level)
    if peak:  # where there is no /proc, there is nothing to tell
        found["peak MiB"] = peak / _MIB
    if task.repeats is not None and "added" in found:
        found["added"] = 0.0  # all of it was said in that task
    return found


def figures_by_name(level: LevelResult) -> Measured:
    """What tables show of a level."""
    figures = level.figures
    found = compared(figures)
    if (num_prompt := figures.num_prompt_tokens) is not None:
        found["prompt"] = float(num_prompt)
        if figures.num_cached_tokens is not None:
            found["prefilled"] = float(num_prompt - figures.num_cached_tokens)
    if figures.itl_ms is not None:
        found["ITL max ms"] = figures.itl_ms.max
    if level.requests:
        found["added"] = _added(level.requests)
    found["new"] = float(figures.num_output_tokens)
    return found


def _added(requests: Sequence[RequestFigures]) -> float:
    """Prompt tokens that are in no earlier turn of the conversation, nor in an answer there.

    All conversations have as many turns, and answers come back as the tokens that they were.
    """
    last = max(request.turn for request in requests)
    said = sum(request.num_prompt or 0 for request in requests if request.turn == last)
    return float(said - sum(request.num_output for request in requests if request.turn < last))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


# ── tables ───────────────────────────────────────────────────────────────────────────────────


def medians(turns: Sequence[Turn], columns: Sequence[str]) -> str:
    """Each contender's medians, task by task."""
    rows = [["", "", *columns]]
    for task in dict.fromkeys(turn.task for turn in turns):
        for name in dict.fromkeys(turn.name for turn in turns if turn.task == task):
            own = [turn.figures for turn in turns if (turn.task, turn.name) == (task, name)]
            cells = [
                number(median(values)) if (values := [f[c] for f in own if c in f]) else ""
                for c in columns
            ]
            rows.append([task, name, *cells])
    return grid(rows)


def ratios(turns: Sequence[Turn], columns: Sequence[str], first: str = OURS) -> str:
    """The first's by each other's, round by round: median and 95 % interval."""
    rows = [["", f"{first} to", *columns]]
    for task in dict.fromkeys(turn.task for turn in turns):
        measured = {
            (turn.name, turn.round): {c: turn.figures[c] for c in columns if c in turn.figures}
            for turn in turns
            if turn.task == task
        }
        found = {(ratio.other, ratio.figure): ratio for ratio in ratios_at(task, measured, first)}
        rows += [
            [task, other, *(ratio_cell(found.get((other, c))) for c in columns)]
            for other in dict.fromkeys(name for name, _ in measured if name != first)
        ]
    return grid(rows)


def ratio_cell(ratio: Ratio | None) -> str:
    """A ratio with its interval; nothing where there is none."""
    if ratio is None:
        return ""
    interval = ratio.ratio
    return f"{interval.median:.2f} ({interval.low:.2f} to {interval.high:.2f})"


# ── what every table's command shares ────────────────────────────────────────────────────────


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with what all have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--rounds", type=int, default=8, help="how often each is measured")
    made.add_argument("--json", type=Path, help="a file for every single figure")
    return made


def report(
    asked: argparse.Namespace,
    turns: Turns,
    *,
    shown: Sequence[str],
    compared: Sequence[str],
    firsts: Sequence[str] = (OURS,),
) -> None:
    """Print machine, medians, and ratios of each of `firsts`; keep all figures where asked to.

    Raises:
        SystemExit: it ended early; what there is was printed.
    """
    num_rounds = 1 + max(turn.round for turn in turns)
    print(f"{conditions()}; {num_rounds} rounds\n")
    print("\n\n".join([medians(turns, shown), *(ratios(turns, compared, one) for one in firsts)]))
    if asked.json is not None:
        asked.json.write_text(json.dumps([dataclasses.asdict(turn) for turn in turns], indent=1))
    if turns.ended_early:
        raise SystemExit(INTERRUPTED)


def conditions() -> str:
    """Machine and versions, in one line."""
    machine = this_machine()
    engine = wheel_builder().locked_source(ROOT / "uv.lock").version
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        check=False,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return (
        f"{machine.processor}, {machine.num_cores} cores; Python {platform.python_version()}; "
        f"llama.cpp of llama-cpp-python {engine}; Backplane {__version__} {commit}".rstrip()
    )
