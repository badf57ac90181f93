"""Takes servers through their turns: started when it is their turn, or already running."""

import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Self, TextIO

from backplane_launcher.bench.client import Client
from backplane_launcher.bench.comparison import Turn, order_of
from backplane_launcher.bench.dialects import Ask
from backplane_launcher.bench.plan import Plan
from backplane_launcher.bench.processes import descendants_of, states_of
from backplane_launcher.bench.run import Measurement
from backplane_launcher.bench.server_facts import served_model, server_version
from backplane_launcher.bench.started_server import Readiness, StartedServer, StartOrder
from backplane_launcher.usage import UsageError

# Prompts of a round: more than any round uses, so that none sees an earlier one's.
_NUMBERS_A_ROUND = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server in the contest: one that runs at `url`, or one to be started."""

    name: str
    url: str = ""
    order: StartOrder | None = None


def contenders_of(compare: tuple[str, ...], start: tuple[str, ...]) -> list[Contender]:
    """Read `--compare` and `--start`; the first is the one that others are measured by.

    Raises:
        UsageError: a value cannot be meant, or two have one name.
    """
    found: list[Contender] = []
    for text in compare:
        name, _, url = text.partition("=")
        if not name.strip() or not url:
            raise UsageError(f"--compare {text} is not NAME=URL")
        found.append(Contender(name=name.strip(), url=url.rstrip("/")))
    found += [Contender(name=order.name, order=order) for order in map(StartOrder.parse, start)]
    names = [contender.name for contender in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two servers are called {min(twice)}", remedy="name them apart")
    return found


@dataclass(frozen=True, kw_only=True)
class _Running:
    server: StartedServer
    readiness: Readiness


class Contest:
    """All turns. Use as a context manager: at its end, whatever it started is stopped."""

    def __init__(self, plan: Plan, contenders: list[Contender], console: TextIO) -> None:
        self._plan = plan
        self._contenders = {contender.name: contender for contender in contenders}
        self._console = console
        self._kept: dict[str, _Running] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for running in self._kept.values():
            await running.server.stop()
        self._kept.clear()

    async def run(self, num_rounds: int) -> list[Turn]:
        """Every server's turn in every round.

        Raises:
            SetupError: one cannot be started.
        """
        names = list(self._contenders)
        return [
            await self._turn(self._contenders[name], round_)
            for round_ in range(num_rounds)
            for name in order_of(names, round_)
        ]

    async def _turn(self, contender: Contender, round_: int) -> Turn:
        async with self._at(contender) as (client, readiness):
            client.model = client.model or await served_model(client)
            version = await server_version(client)
            idle = [
                pid
                for name, running in self._kept.items()
                if name != contender.name
                for pid in descendants_of(running.server.pid)
            ]
            before, began = _cpu_s(idle), time.perf_counter()
            measurement = Measurement(
                self._plan,
                client,
                self._console,
                label=f"{contender.name}, round {round_ + 1}" if len(self._contenders) > 1 else "",
                first=round_ * _NUMBERS_A_ROUND,
            )
            levels = await measurement.run()
            idle_cpu = (_cpu_s(idle) - before) / (time.perf_counter() - began)
        return Turn(
            name=contender.name,
            round=round_,
            url=client.address.url,
            model=client.model,
            server=version,
            levels=levels,
            readiness=readiness,
            idle_cpu=idle_cpu,
        )

    @contextlib.asynccontextmanager
    async def _at(
        self, contender: Contender
    ) -> AsyncGenerator[tuple[Client, Readiness | None], None]:
        """The server for the time of a turn, ready, and how long that took."""
        if contender.order is None:
            client = self._plan.client(contender.url)
            try:
                yield client, None
            finally:
                client.close()
            return
        kept = self._kept.get(contender.name)
        running = kept or await self._start(contender.order)
        client = self._plan.client(running.server.url)
        try:
            yield client, None if kept else running.readiness
        finally:
            client.close()
            if not self._plan.settings.keep:
                await running.server.stop()

    async def _start(self, order: StartOrder) -> _Running:
        server = StartedServer(order)
        client = self._plan.client(server.url)
        try:
            await server.start()
            readiness = await server.wait_until_ready(
                client, self._first_ask(), self._plan.settings.start_timeout
            )
        except BaseException:
            await server.stop()
            raise
        finally:
            client.close()
        running = _Running(server=server, readiness=readiness)
        if self._plan.settings.keep:
            self._kept[order.name] = running
        return running

    def _first_ask(self) -> Ask:
        """The workload's kind of request, for one token, of a number that nothing else has."""
        ask = self._plan.workload.conversation(-1).ask()
        if ask is None:
            raise AssertionError("every conversation has a first request")
        return Ask(prompt=ask.prompt, messages=ask.messages, num_output=1)


def _cpu_s(pids: list[int]) -> float:
    return sum(state.cpu_s for state in states_of(pids, with_memory=False).values())
