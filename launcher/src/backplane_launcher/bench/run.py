"""Measures one server, level after level."""

import gc
import time
from typing import TextIO

from backplane_launcher.bench.client import Client
from backplane_launcher.bench.figures import Figures, figures_of
from backplane_launcher.bench.load import Level, Loader
from backplane_launcher.bench.plan import Plan
from backplane_launcher.bench.processes import is_local, processes_at, states_of
from backplane_launcher.bench.progress import shown
from backplane_launcher.bench.report import LevelResult, request_figures


class Measurement:
    """Levels at one server. Prompts are numbered from `first` on, each used once.

    `levels` are those that are whole: all of them, unless it is told to end before.
    """

    def __init__(
        self, plan: Plan, client: Client, console: TextIO, *, label: str = "", first: int = 0
    ) -> None:
        self.levels: list[LevelResult] = []
        self._plan = plan
        self._client = client
        self._console = console
        self._label = label
        self._first = first
        self._is_local = is_local(client.address.host)

    async def run(self) -> None:
        """Measure every level."""
        for level in self._plan.levels:
            self.levels.append(await self._level(level))

    async def _level(self, level: Level) -> LevelResult:
        """Warm up, measure, sum up."""
        warmup = self._plan.num_warmup(level)
        if warmup:
            streams = level.concurrency or 1
            await self._load(Level(concurrency=min(streams, warmup), num=warmup), "warm-up")
        # What is alive now is no garbage: a collection in the midst of a level looks at less.
        gc.collect()
        gc.freeze()
        before = states_of(self._processes(), with_memory=False)
        cpu, wall = time.process_time(), time.perf_counter()
        loader = await self._load(level, level.label)
        own_share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        after = states_of(self._processes(), with_memory=True)
        figures: Figures = figures_of(
            level,
            loader.tally.replies,
            limits=self._plan.limits,
            before=before,
            after=after,
            generator_cpu=own_share,
            max_lateness_s=loader.tally.max_lateness_s,
        )
        wanted = self._plan.settings.per_request
        return LevelResult(
            figures=figures, requests=request_figures(loader.tally.replies) if wanted else []
        )

    async def _load(self, level: Level, label: str) -> Loader:
        loader = Loader(self._client, self._plan.workload, self._first, self._plan.seed)
        name = f"{self._label}, {label}" if self._label else label
        async with shown(self._console, name, loader.tally):
            await loader.run(level)
        self._first = loader.next_number
        return loader

    def _processes(self) -> list[int]:
        return processes_at(self._client.address.port) if self._is_local else []
