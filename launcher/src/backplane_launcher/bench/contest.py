"""Takes servers through their turns: started when it is their turn, or already running."""

import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Self, TextIO

from backplane_launcher.bench.client import Client
from backplane_launcher.bench.comparison import Turn, order_of
from backplane_launcher.bench.dialects import Ask
from backplane_launcher.bench.plan import Plan
from backplane_launcher.bench.processes import come_to_rest, cpu_s_of, descendants_of
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


class Contest:
    """Servers that take turns. Use as a context manager: at its end, what it started is stopped.

    Args:
        contenders: the servers, which have names of their own.
        console: where progress is shown.
        keep: servers to start are started once, not at every turn.
        start_timeout_s: until such a one is ready.

    Attributes:
        turns: those so far; told to end, the last one has those of its levels that are whole.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        console: TextIO,
        *,
        keep: bool,
        start_timeout_s: float,
    ) -> None:
        self.turns: list[Turn] = []
        self._contenders = {contender.name: contender for contender in contenders}
        self._console = console
        self._keep = keep
        self._start_timeout_s = start_timeout_s
        self._kept: dict[str, StartedServer] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._kept.values():
            await server.stop()
        self._kept.clear()

    async def run(self, plan: Plan, num_rounds: int) -> None:
        """Every server's turn in every round.

        Raises:
            SetupError: one cannot be started.
        """
        names = list(self._contenders)
        for round_ in range(num_rounds):
            for name in order_of(names, round_):
                label = f"{name}, round {round_ + 1}" if len(names) > 1 else ""
                await self.turn(name, round_, plan, first=round_ * _NUMBERS_A_ROUND, label=label)

    async def turn(
        self, name: str, round_: int, plan: Plan, *, first: int = 0, label: str = ""
    ) -> Turn:
        """One server's turn.

        Args:
            name: whose.
            round_: which round's.
            plan: what it is asked, from the prompt of number `first` on.
            first: likewise.
            label: stands before the progress.

        Raises:
            SetupError: it cannot be started.
        """
        async with self.at(name, plan) as (client, readiness):
            client.model = client.model or await served_model(client)
            version = await server_version(client)
            idle = await self.at_rest(name)
            before, began = cpu_s_of(idle), time.perf_counter()
            measurement = Measurement(plan, client, self._console, label=label, first=first)
            try:
                await measurement.run()
            finally:
                if measurement.levels:
                    idle_cpu_s = cpu_s_of(idle) - before
                    self.turns.append(
                        Turn(
                            name=name,
                            round=round_,
                            url=client.address.url,
                            model=client.model,
                            server=version,
                            levels=measurement.levels,
                            readiness=readiness,
                            idle_cpu=idle_cpu_s / (time.perf_counter() - began),
                        )
                    )
        return self.turns[-1]

    async def at_rest(self, name: str | None = None) -> list[int]:
        """Wait for the kept servers, but for this one, to come to rest. Their processes."""
        idle = [
            pid
            for other, server in self._kept.items()
            if other != name
            for pid in descendants_of(server.pid)
        ]
        await come_to_rest(idle)
        return idle

    @contextlib.asynccontextmanager
    async def at(
        self, name: str, plan: Plan
    ) -> AsyncGenerator[tuple[Client, Readiness | None], None]:
        """A client of a server for the time of a turn, and how long a start took, if it was one.

        Raises:
            SetupError: it cannot be started.
        """
        contender = self._contenders[name]
        readiness = leaving = None
        if contender.order is None:
            url = contender.url
        elif (kept := self._kept.get(name)) is not None:
            url = kept.url
        else:
            server, readiness = await self._start(contender.order, plan)
            url = server.url
            if self._keep:
                self._kept[name] = server
            else:
                leaving = server
        client = plan.client(url)
        try:
            yield client, readiness
        finally:
            client.close()
            if leaving is not None:
                await leaving.stop()

    async def _start(self, order: StartOrder, plan: Plan) -> tuple[StartedServer, Readiness]:
        server = StartedServer(order)
        client = plan.client(server.url)
        try:
            await server.start()
            return server, await server.wait_until_ready(
                client, _first_ask(plan), self._start_timeout_s
            )
        except BaseException:
            await server.stop()
            raise
        finally:
            client.close()


def _first_ask(plan: Plan) -> Ask:
    """The workload's kind of request, for one token, of a number that nothing else has."""
    ask = plan.workload.conversation(-1).ask()
    if ask is None:
        raise AssertionError("every conversation has a first request")
    return Ask(prompt=ask.prompt, messages=ask.messages, num_output=1)
