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
    """All turns, and what they come to."""

    seed: int
    settings: dict[str, Any]
    machine: Machine
    turns: list[Turn]
    ratios: list[Ratio]


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


def ratios_of(turns: Sequence[Turn], names: Sequence[str]) -> list[Ratio]:
    """Every figure of the first by each other's, level by level; then the times to ready."""
    first, *others = names
    found: list[Ratio] = []
    by_turn = {(turn.name, turn.round): turn for turn in turns}
    num_rounds = 1 + max(turn.round for turn in turns)
    num_levels = max(len(turn.levels) for turn in turns)
    for level in range(num_levels):
        for figure, value in COMPARED.items():
            for other in others:
                pairs = [
                    (value(mine), value(theirs))
                    for round_ in range(num_rounds)
                    if (mine := _level(by_turn.get((first, round_)), level))
                    and (theirs := _level(by_turn.get((other, round_)), level))
                ]
                load = _load(turns[0].levels[level].figures)
                found += _ratio(load, figure, first, other, pairs)
    for other in others:
        for figure in ("ready_s", "first_answer_s"):
            pairs = [
                (getattr(mine.readiness, figure), getattr(theirs.readiness, figure))
                for round_ in range(num_rounds)
                if (mine := by_turn.get((first, round_))) is not None
                and (theirs := by_turn.get((other, round_))) is not None
                and mine.readiness is not None
                and theirs.readiness is not None
            ]
            found += _ratio("start", figure.replace("_", " "), first, other, pairs)
    return found


def _level(turn: Turn | None, level: int) -> Figures | None:
    return None if turn is None or level >= len(turn.levels) else turn.levels[level].figures


def _load(figures: Figures) -> str:
    return f"{figures.concurrency}" if figures.rate is None else f"{figures.rate:g}/s"


def _ratio(
    load: str,
    figure: str,
    first: str,
    other: str,
    pairs: Sequence[tuple[float | None, float | None]],
) -> list[Ratio]:
    whole = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs]
    if not whole:
        return []
    return [
        Ratio(
            load=load,
            figure=figure,
            first=first,
            other=other,
            first_median=median(mine for mine, _ in whole),
            other_median=median(theirs for _, theirs in whole),
            ratio=bootstrap_median([mine / theirs for mine, theirs in whole]),
        )
    ]
