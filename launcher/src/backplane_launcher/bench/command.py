"""`backplane bench` from settings to exit status."""

import asyncio
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, TypeVar

import msgspec
from backplane_core.errors import SetupError

from backplane_launcher.bench.plan import Plan, make_plan
from backplane_launcher.bench.report import Report, this_machine
from backplane_launcher.bench.run import Measurement, served_model
from backplane_launcher.bench.table import tables
from backplane_launcher.settings.bench import BenchSettings

T = TypeVar("T")


def bench(settings: BenchSettings, output: TextIO, console: TextIO) -> int:
    """Measure, print tables to `output` and progress to `console`; 1 where requests failed.

    Raises:
        UsageError: a flag cannot be meant.
        SetupError: nobody answers.
    """
    plan = make_plan(settings)
    report = _run(_measure(plan, console))
    _write(settings, report, output)
    if settings.json != "-":
        output.write(f"{tables([level.figures for level in report.levels])}\n")
    return int(any(level.figures.failures for level in report.levels))


async def _measure(plan: Plan, console: TextIO) -> Report:
    settings = plan.settings
    client = plan.client(settings.url, settings.model)
    try:
        client.model = settings.model or await served_model(client)
        levels = await Measurement(plan, client, console).run()
    finally:
        client.close()
    return Report(
        url=settings.url,
        model=client.model,
        server="",
        seed=plan.seed,
        settings=shown_settings(settings),
        machine=this_machine(),
        levels=levels,
    )


def shown_settings(settings: BenchSettings) -> dict[str, Any]:
    """The flags, without the key."""
    return {name: value for name, value in asdict(settings).items() if name != "api_key"}


def _write(settings: BenchSettings, report: msgspec.Struct, output: TextIO) -> None:
    if settings.json is None:
        return
    text = msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"
    if settings.json == "-":
        output.write(text)
        return
    try:
        Path(settings.json).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"cannot write {settings.json}: {error.strerror}", remedy="name another file"
        ) from error


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed: it takes a third off every event."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)
