"""Paired rounds: each round measures every contender at every task, to and fro, and neighbouring
measurements are compared. Servers are started once and stand idle while others are measured.
"""

import argparse
import asyncio
import dataclasses
import io
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

import uvloop
from backplane_core.version import __version__
from backplane_launcher.bench.comparison import COMPARED, order_of
from backplane_launcher.bench.figures import Figures
from backplane_launcher.bench.plan import make_plan
from backplane_launcher.bench.processes import descendants_of, states_of
from backplane_launcher.bench.report import LevelResult, RequestFigures, this_machine
from backplane_launcher.bench.run import Measurement
from backplane_launcher.bench.server_facts import served_model
from backplane_launcher.bench.started_server import StartedServer, StartOrder
from backplane_launcher.bench.statistics import bootstrap_median
from backplane_launcher.bench.table import grid, number
from backplane_launcher.settings.bench import BenchSettings

from benchmarks.contenders import OURS, Ceiling, Server
from benchmarks.peers.places import ROOT, wheel_builder

_START_LIMIT_S: Final = 300.0
_BUSY_IDLER: Final = 0.05
Measured = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A row: what is asked. `settings` are `backplane bench`'s.

    Attributes:
        among: who is asked; None is everyone.
        fields: what goes into the requests to the server of that name.
        repeats: the task before whose very prompts it sends; else it has its own.
    """

    name: str
    settings: Mapping[str, Any]
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


class Contest:
    """Servers that run until the end of the `async with`."""

    def __init__(self, servers: Sequence[Server], num_rounds: int) -> None:
        self._servers = {server.name: server for server in servers}
        self._num_rounds = num_rounds
        self._running: dict[str, StartedServer] = {}

    async def __aenter__(self) -> Self:
        try:
            for server in self._servers.values():
                await self._start(server)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for running in self._running.values():
            await running.stop()

    async def run(self, tasks: Sequence[Task]) -> list[Turn]:
        """All rounds, or those that were whole when told to end; what happens is told.

        Progress goes to standard error.
        """
        turns: list[Turn] = []
        try:
            await self._run(tasks, turns)
        except asyncio.CancelledError:
            whole = max((turn.round for turn in turns), default=0)
            turns = [turn for turn in turns if turn.round < whole]
            if not turns:
                raise
            self._say(f"told to end after {whole} rounds")
        return turns

    async def _run(self, tasks: Sequence[Task], turns: list[Turn]) -> None:
        names_of_tasks = [task.name for task in tasks]
        for round_ in range(self._num_rounds):
            for task in tasks:
                place = names_of_tasks.index(task.repeats or task.name)
                names = [task.ceiling.name] if task.ceiling else []
                names += [name for name in self._servers if task.takes(name)]
                for name in order_of(names, round_):
                    if task.ceiling is not None and name == task.ceiling.name:
                        figures = task.ceiling.measure()
                    else:
                        figures = await self._ask(self._servers[name], task, round_, place)
                    turns.append(Turn(round=round_, task=task.name, name=name, figures=figures))
                    rate = figures.get("output tok/s", 0.0)
                    self._say(f"round {round_ + 1}, {task.name}, {name}: {rate:.1f} tok/s")

    async def _start(self, server: Server) -> None:
        self._say(f"starting {server.name}")
        running = StartedServer(StartOrder(name=server.name, command=server.command))
        self._running[server.name] = running
        plan = make_plan(BenchSettings(seed=os.getpid(), prompt_length="64", output_length="1"))
        client = plan.client(running.url)
        ask = plan.workload.conversation(0).ask()
        assert ask is not None
        try:
            await running.start()
            ready = await running.wait_until_ready(client, ask, _START_LIMIT_S)
        finally:
            client.close()
        self._say(f"{server.name} was ready after {ready.ready_s:.1f} s")

    async def _ask(self, server: Server, task: Task, round_: int, place: int) -> Measured:
        fields = {**server.fields, **task.fields.get(server.name, {})}
        plan = make_plan(
            # Every round has prompts of its own, the same ones for every server.
            BenchSettings(
                **{"seed": 1 + round_, "warmup": 0, **task.settings}, extra=json.dumps(fields)
            )
        )
        client = plan.client(self._running[server.name].url)
        idlers = [
            pid
            for name, running in self._running.items()
            if name != server.name
            for pid in descendants_of(running.pid)
        ]
        before = _cpu_s(idlers)
        try:
            client.model = await served_model(client)
            # Progress in place of that of `backplane bench` is a line for each turn.
            measurement = Measurement(plan, client, io.StringIO(), first=1000 * place)
            (level,) = await measurement.run()
        finally:
            client.close()
        if level.figures.failures:
            raise SystemExit(f"{server.name} failed: {level.figures.failures[0].message}")
        if (idle := (_cpu_s(idlers) - before) / level.figures.wall_s) > _BUSY_IDLER:
            self._say(f"the others took {idle:.0%} of a core meanwhile")
        return figures_by_name(level)

    @staticmethod
    def _say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)


def figures_by_name(level: LevelResult) -> Measured:
    """What tables show of a level."""
    figures: Figures = level.figures
    found = {name: value(figures) for name, value in COMPARED.items()}
    if (num_prompt := figures.num_prompt_tokens) is not None:
        found["prompt"] = float(num_prompt)
        if figures.num_cached_tokens is not None:
            found["prefilled"] = float(num_prompt - figures.num_cached_tokens)
    if figures.itl_ms is not None:
        found["ITL max ms"] = figures.itl_ms.max
    if level.requests and figures.concurrency:
        found["added"] = _added(level.requests, figures.concurrency)
    found["new"] = float(figures.num_output_tokens)
    return {name: value for name, value in found.items() if value is not None}


def _added(requests: Sequence[RequestFigures], num_conversations: int) -> float:
    """Prompt tokens that are no part of the turn before or of its answer.

    Where all conversations have as many turns, those with the longest prompts are the last ones.
    """
    ordered = sorted(requests, key=lambda request: request.num_prompt or 0)
    earlier, last = ordered[:-num_conversations], ordered[-num_conversations:]
    said = sum(request.num_prompt or 0 for request in last)
    return float(said - sum(request.num_output for request in earlier))


def _cpu_s(pids: list[int]) -> float:
    return sum(state.cpu_s for state in states_of(pids, with_memory=False).values())


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


def ratios(turns: Sequence[Turn], columns: Sequence[str], *, first: str = OURS) -> str:
    """The first's figures by each other's, round by round: median and 95 % interval."""
    rows = [["", f"{first} to", *columns]]
    by_place = {(turn.task, turn.name, turn.round): turn.figures for turn in turns}
    num_rounds = 1 + max(turn.round for turn in turns)
    for task in dict.fromkeys(turn.task for turn in turns):
        others = dict.fromkeys(turn.name for turn in turns if turn.task == task)
        for other in others:
            if other == first:
                continue
            pairs = [
                (by_place[task, first, round_], by_place[task, other, round_])
                for round_ in range(num_rounds)
            ]
            rows.append([task, other, *(_ratio(pairs, column) for column in columns)])
    return grid(rows)


def _ratio(pairs: Sequence[tuple[Measured, Measured]], column: str) -> str:
    whole = [
        mine[column] / theirs[column]
        for mine, theirs in pairs
        if column in mine and theirs.get(column)
    ]
    if not whole:
        return ""
    found = bootstrap_median(whole)
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


# ── what every table's command shares ────────────────────────────────────────────────────────


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with what all have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--rounds", type=int, default=8, help="how often each is measured")
    made.add_argument("--json", type=Path, help="a file for every single figure")
    return made


def stops_in_order() -> None:
    """Told to end, the task at hand is cancelled, so that servers it started are stopped."""
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def contest(servers: Sequence[Server], tasks: Sequence[Task], num_rounds: int) -> list[Turn]:
    """Start, measure, stop."""

    async def run() -> list[Turn]:
        stops_in_order()
        async with Contest(servers, num_rounds) as running:
            return await running.run(tasks)

    return uvloop.run(run())


def report(
    asked: argparse.Namespace,
    turns: Sequence[Turn],
    *,
    shown: Sequence[str],
    compared: Sequence[str],
) -> None:
    """Print machine, medians and ratios; keep all figures where that is asked for."""
    num_rounds = 1 + max(turn.round for turn in turns)
    print(f"{conditions()}; {num_rounds} rounds\n")
    print(f"{medians(turns, shown)}\n\n{ratios(turns, compared)}")
    if asked.json is not None:
        asked.json.write_text(json.dumps([dataclasses.asdict(turn) for turn in turns], indent=1))


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
