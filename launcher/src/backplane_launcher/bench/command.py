"""`backplane bench` from settings to exit status."""

import asyncio
import signal
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any, TextIO, TypeVar

from backplane_launcher.bench.comparison import Comparison, ratios_of
from backplane_launcher.bench.comparison_table import comparison_tables
from backplane_launcher.bench.contest import Contender, Contest, contenders_of
from backplane_launcher.bench.figures import Figures
from backplane_launcher.bench.plan import Plan, make_plan
from backplane_launcher.bench.report import Report, check_destination, deliver, this_machine
from backplane_launcher.bench.table import tables
from backplane_launcher.settings.bench import BenchSettings

T = TypeVar("T")


def bench(settings: BenchSettings, output: TextIO, console: TextIO) -> int:
    """Measure, print tables to `output` and progress to `console`; 1 where requests failed.

    Raises:
        KeyboardInterrupt: it was told to end; what was measured before is printed.
        UsageError: a flag cannot be meant.
        SetupError: a server cannot be started, or the file not be written.
    """
    plan = make_plan(settings)
    contenders = contenders_of(settings.compare, settings.start)
    check_destination(settings.json)
    if plan.remark:
        console.write(f"{plan.remark}\n")
    try:
        report = _run(_measure(plan, contenders, console))
    except asyncio.CancelledError as error:  # SIGTERM: what was started is stopped by now
        raise KeyboardInterrupt from error
    page = _page(report)
    if report.ended_early:
        num_turns = len(contenders) * settings.rounds if isinstance(report, Comparison) else 1
        num_whole, num_asked = len(_all_figures(report)), num_turns * len(plan.levels)
        page += f"\n\ntold to end early: {num_whole} of {num_asked} levels are whole"
    deliver(report, page, settings.json, output)
    if report.ended_early:
        raise KeyboardInterrupt
    return int(any(figures.failures for figures in _all_figures(report)))


async def _measure(plan: Plan, contenders: list[Contender], console: TextIO) -> Report | Comparison:
    settings = plan.settings
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    alone = contenders or [Contender(name="", url=settings.url.rstrip("/"))]
    is_contest = len(alone) > 1
    contest = Contest(alone, console, keep=settings.keep, start_timeout_s=settings.start_timeout)
    ended_early = False
    try:
        async with contest:
            await contest.run(plan, settings.rounds if is_contest else 1)
    except asyncio.CancelledError:
        if not contest.turns:
            raise
        ended_early = True
    turns = contest.turns
    common: dict[str, Any] = {
        "seed": plan.seed,
        "settings": {name: value for name, value in asdict(settings).items() if name != "api_key"},
        "machine": this_machine(),
        "ended_early": ended_early,
    }
    if is_contest:
        ratios = ratios_of(turns, alone[0].name)
        return Comparison(turns=turns, ratios=ratios, **common)
    (turn,) = turns
    return Report(
        url=turn.url,
        model=turn.model,
        server=turn.server,
        levels=turn.levels,
        readiness=turn.readiness,
        **common,
    )


def _all_figures(report: Report | Comparison) -> list[Figures]:
    groups = [report] if isinstance(report, Report) else report.turns
    return [level.figures for group in groups for level in group.levels]


def _page(report: Report | Comparison) -> str:
    if isinstance(report, Comparison):
        return comparison_tables(report)
    page = tables([level.figures for level in report.levels])
    if (readiness := report.readiness) is not None:
        page += (
            f"\n\nready after {readiness.ready_s:.2f} s, first answer after "
            f"{readiness.first_answer_s:.2f} s"
        )
    return f"{page}\n\nseed {report.seed}"


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed: it makes every event cheaper."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)
