"""The result as a document: what was measured, on what machine, and what came out."""

import itertools
import os
import platform
from pathlib import Path
from typing import Any, TextIO

import msgspec
from backplane_core.errors import SetupError
from backplane_core.version import __version__

from backplane_launcher.bench.figures import Figures
from backplane_launcher.bench.reply import Reply
from backplane_launcher.bench.started_server import Readiness


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    system: str
    processor: str
    num_cores: int
    python: str
    backplane: str


class RequestFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request; times in milliseconds, `started_ms` from the level's first.

    `turn` is which of its conversation's it is, from 1 on.
    """

    started_ms: float
    ttft_ms: float | None
    e2e_ms: float
    gaps_ms: list[float]
    num_prompt: int | None
    num_cached: int | None
    num_output: int
    turn: int = 1
    failure: str = ""
    message: str = ""


class LevelResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A level's figures; `requests` where every one was asked for."""

    figures: Figures
    requests: list[RequestFigures] = []


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One server's. `settings` are the flags; `readiness` is told where we started it.

    Where it `ended_early`, levels are missing: it was told to end before they were whole.
    """

    url: str
    model: str | None
    server: str
    seed: int
    settings: dict[str, Any]
    machine: Machine
    levels: list[LevelResult]
    readiness: Readiness | None = None
    ended_early: bool = False


def check_destination(path: str | None) -> None:
    """Find out before anything is measured whether `--json` can be written.

    Raises:
        SetupError: it cannot.
    """
    if path is None or path == "-":
        return
    try:
        with Path(path).open("a"):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error


def deliver(report: msgspec.Struct, page: str, path: str | None, output: TextIO) -> None:
    """Print the page, and write the report to `path`; `-` prints the report in the page's place.

    Raises:
        SetupError: it cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"
    output.write(text if path == "-" else f"{page}\n")
    if path is None or path == "-":
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: str, error: OSError) -> SetupError:
    return SetupError(f"cannot write {path}: {error.strerror}", remedy="name another file")


def this_machine() -> Machine:
    """Describe this machine."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        python=platform.python_version(),
        backplane=__version__,
    )


def request_figures(replies: list[Reply]) -> list[RequestFigures]:
    """Every request's own figures, in the order in which they began."""
    ordered = sorted(replies, key=lambda reply: reply.started)
    return [_one(reply, ordered[0].started) for reply in ordered]


def _one(reply: Reply, zero: float) -> RequestFigures:
    arrivals = reply.arrivals
    return RequestFigures(
        started_ms=1000 * (reply.started - zero),
        ttft_ms=None if reply.ttft is None else 1000 * reply.ttft,
        e2e_ms=1000 * reply.e2e,
        gaps_ms=[1000 * (b - a) for a, b in itertools.pairwise(arrivals)],
        num_prompt=reply.num_prompt,
        num_cached=reply.num_cached,
        num_output=reply.num_tokens,
        turn=reply.turn,
        failure=reply.failure,
        message=reply.message,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
