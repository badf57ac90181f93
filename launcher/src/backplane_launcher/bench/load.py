"""The two ways to load a server: so many streams at all times, or so many requests a second."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from typing import Final

from backplane_launcher.bench.client import Client
from backplane_launcher.bench.reply import CONNECT, Reply
from backplane_launcher.bench.workload import Conversation, Workload

# A server that is not there is not asked as fast as the machine can.
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, kw_only=True)
class Level:
    """One step of a sweep: either `concurrency` or `rate` is set, and one of the other two.

    `num` counts conversations, which are requests where each has one turn.
    """

    concurrency: int | None = None
    rate: float | None = None
    num: int | None = None
    duration_s: float | None = None

    @property
    def label(self) -> str:
        """For people."""
        if self.rate is not None:
            return f"{self.rate:g}/s"
        return "1 stream" if self.concurrency == 1 else f"{self.concurrency} streams"


@dataclass
class Tally:
    """What has happened so far. `replies` are those that ended."""

    replies: list[Reply] = field(default_factory=list[Reply])
    under_way: dict[int, Reply] = field(default_factory=dict[int, Reply])
    num_tokens: int = 0
    num_failed: int = 0
    max_lateness_s: float = 0.0

    @property
    def num_tokens_now(self) -> int:
        """New tokens, those of unfinished answers by their events."""
        return self.num_tokens + sum(len(reply.arrivals) for reply in self.under_way.values())


class Loader:
    """Sends a workload's conversations from number `first` on to one server."""

    def __init__(self, client: Client, workload: Workload, first: int, seed: int) -> None:
        self.tally = Tally()
        self._client = client
        self._workload = workload
        self._numbers = itertools.count(first)
        self._first = first
        self._seed = seed

    @property
    def next_number(self) -> int:
        """The first number that was not used."""
        return self._first + self._num_begun

    _num_begun = 0

    async def run(self, level: Level) -> None:
        """Load the server until all is answered."""
        if level.rate is None:
            await self._closed(level)
        else:
            await self._open(level, level.rate)

    def _limit(self, level: Level) -> Callable[[float], bool]:
        """Whether another conversation may begin at a time."""
        if level.duration_s is not None:
            end = perf_counter() + level.duration_s
            return lambda when: when < end
        return lambda _: self._num_begun < (level.num or 0)

    def _begin(self) -> Conversation:
        self._num_begun += 1
        return self._workload.conversation(next(self._numbers))

    async def _closed(self, level: Level) -> None:
        may_begin = self._limit(level)

        async def stream() -> None:
            while may_begin(perf_counter()):
                await self._converse(self._begin(), None)

        await self._client.connect(level.concurrency or 1)
        async with asyncio.TaskGroup() as streams:
            for _ in range(level.concurrency or 1):
                streams.create_task(stream())

    async def _open(self, level: Level, rate: float) -> None:
        may_begin = self._limit(level)
        random = Random(f"{self._seed}:arrivals:{self._first}")  # noqa: S311 - no secret
        due = perf_counter() + random.expovariate(rate)
        async with asyncio.TaskGroup() as requests:
            while may_begin(due):
                await asyncio.sleep(max(0.0, due - perf_counter()))
                lateness = perf_counter() - due
                self.tally.max_lateness_s = max(self.tally.max_lateness_s, lateness)
                requests.create_task(self._converse(self._begin(), due))
                due += random.expovariate(rate)

    async def _converse(self, conversation: Conversation, due: float | None) -> None:
        tally = self.tally
        turn = 0
        while (ask := conversation.ask()) is not None:
            turn += 1
            reply = Reply(started=perf_counter() if due is None else due, turn=turn)
            due = None
            tally.under_way[id(reply)] = reply
            await self._client.send(ask, reply)
            del tally.under_way[id(reply)]
            conversation.answered(reply)
            # Kept by the thousands; only its times and counts are wanted from here on.
            reply.texts.clear()
            tally.replies.append(reply)
            tally.num_tokens += reply.num_tokens
            if reply.failure:
                tally.num_failed += 1
                if reply.failure == CONNECT:
                    await asyncio.sleep(_PAUSE_S)
