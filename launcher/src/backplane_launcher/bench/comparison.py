"""Several servers measured in turns, and how the first compares: paired ratios with intervals.

Neighbouring turns meet the machine in one mood, so a ratio within a round says more than two means.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Final

import msgspec

from backplane_launcher.bench.figures import Figures
from backplane_launcher.bench.report import LevelResult, Machine
from backplane_launcher.bench.started_server import Readiness
from backplane_launcher.bench.statistics import Distribution, Interval, bootstrap_median
from backplane_launcher.bench.table import label_of


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One server's turn in a round.

    `idle_cpu` is what kept servers that were not asked took meanwhile, as a share of a core.
    """

    name: str
    round: int
    url: str
    model: str | None
    server: str
    levels: list[LevelResult]
    readiness: Readiness | None = None
    idle_cpu: float = 0.0


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the first server over another's, over all rounds in which both have it."""

    load: str
    figure: str
    first: str
    other: str
    first_median: float
    other_median: float
    ratio: Interval


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All turns, and what they come to.

    Where it `ended_early`, levels of the last turn and later turns are missing.
    """

    seed: int
    settings: dict[str, Any]
    machine: Machine
    turns: list[Turn]
    ratios: list[Ratio]
    ended_early: bool = False


def _of(name: str, part: str) -> Callable[[Figures], float | None]:
    def value(figures: Figures) -> float | None:
        distribution: Distribution | None = getattr(figures, name)
        return None if distribution is None else getattr(distribution, part)

    return value


COMPARED: Final[Mapping[str, Callable[[Figures], float | None]]] = {
    "output tok/s": lambda figures: figures.output_tokens_per_s,
    "total tok/s": lambda figures: figures.total_tokens_per_s,
    "req/s": lambda figures: figures.requests_per_s,
    "goodput/s": lambda figures: figures.goodput,
    "TTFT p50 ms": _of("ttft_ms", "p50"),
    "TTFT p95 ms": _of("ttft_ms", "p95"),
    "TPOT p50 ms": _of("tpot_ms", "p50"),
    "ITL p50 ms": _of("itl_ms", "p50"),
    "ITL p99 ms": _of("itl_ms", "p99"),
    "E2E p50 ms": _of("e2e_ms", "p50"),
    "E2E p95 ms": _of("e2e_ms", "p95"),
    "CPU us/tok": lambda figures: figures.cpu_us_per_token,
}


def order_of(names: Sequence[str], round_: int) -> list[str]:
    """Whose turn is when: to and fro, so that a drift of the machine favours none."""
    return list(names) if round_ % 2 == 0 else list(reversed(names))


def compared(figures: Figures) -> dict[str, float]:
    """What is compared of a level; a figure that it lacks is left out."""
    found = {figure: value(figures) for figure, value in COMPARED.items()}
    return {figure: value for figure, value in found.items() if value is not None}


def ratios_of(turns: Sequence[Turn], first: str) -> list[Ratio]:
    """Every figure of the first by each other's, level by level; then the times to ready."""
    found: list[Ratio] = []
    for level in range(max(len(turn.levels) for turn in turns)):
        levels = {
            (turn.name, turn.round): turn.levels[level].figures
            for turn in turns
            if level < len(turn.levels)
        }
        load = label_of(next(iter(levels.values())))
        found += ratios_at(load, {turn: compared(own) for turn, own in levels.items()}, first)
    started = {
        (turn.name, turn.round): {
            figure.replace("_", " "): seconds
            for figure, seconds in msgspec.structs.asdict(turn.readiness).items()
        }
        for turn in turns
        if turn.readiness is not None
    }
    return found + ratios_at("start", started, first)


def ratios_at(
    load: str, measured: Mapping[tuple[str, int], Mapping[str, float]], first: str
) -> list[Ratio]:
    """Every figure of the first by each other's, over those rounds in which both have it.

    Args:
        load: what all were asked.
        measured: figures by name and round.
        first: who is divided by the others.
    """
    rounds = dict.fromkeys(round_ for _, round_ in measured)
    found: list[Ratio] = []
    for figure in dict.fromkeys(figure for figures in measured.values() for figure in figures):
        for other in dict.fromkeys(name for name, _ in measured if name != first):
            pairs = [
                (mine[figure], theirs[figure])
                for round_ in rounds
                if figure in (mine := measured.get((first, round_), {}))
                # Nothing can be divided by 0.
                and (theirs := measured.get((other, round_), {})).get(figure)
            ]
            if pairs:
                found.append(
                    Ratio(
                        load=load,
                        figure=figure,
                        first=first,
                        other=other,
                        first_median=median(mine for mine, _ in pairs),
                        other_median=median(theirs for _, theirs in pairs),
                        ratio=bootstrap_median([mine / theirs for mine, theirs in pairs]),
                    )
                )
    return found
