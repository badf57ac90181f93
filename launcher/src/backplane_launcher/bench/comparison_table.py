"""A comparison as tables for people: ratios with their intervals, and what weakens them."""

from collections.abc import Iterator

from backplane_launcher.bench.comparison import Comparison, Ratio
from backplane_launcher.bench.table import grid, number, remarks_of, tables

# A kept server that takes more than so much of a core was no idle neighbour.
_BUSY_NEIGHBOUR = 0.01
# Of fewer values, not even the least and the greatest have the median between them that often.
_ROUNDS_FOR_95 = 6


def comparison_tables(comparison: Comparison) -> str:
    """All there is to tell."""
    names = list(dict.fromkeys(turn.name for turn in comparison.turns))
    parts = [_versions(comparison, names)]
    parts += [
        _ratios([ratio for ratio in comparison.ratios if ratio.other == other])
        for other in dict.fromkeys(ratio.other for ratio in comparison.ratios)
    ]
    if not comparison.ratios:
        parts += [
            f"{turn.name}, round {turn.round + 1}, with nothing to compare it with:\n\n"
            f"{tables([level.figures for level in turn.levels])}"
            for turn in comparison.turns
        ]
        return "\n\n".join(parts)
    num_rounds = 1 + max(turn.round for turn in comparison.turns)
    parts.append(
        f"Medians of {num_rounds} rounds; the ratio is the median of the rounds' ratios, with its "
        f"95 % bootstrap interval. Seed {comparison.seed}."
    )
    if num_rounds < _ROUNDS_FOR_95:
        parts.append(
            f"{num_rounds} rounds are too few for 95 %: the intervals are narrower than "
            f"such ones. Give --rounds {_ROUNDS_FOR_95} or more."
        )
    return "\n\n".join([*parts, *_remarks(comparison)])


def _versions(comparison: Comparison, names: list[str]) -> str:
    first = {name: next(t for t in comparison.turns if t.name == name) for name in names}
    rows = [["server", "version", "model"]]
    rows += [[name, turn.server or "-", turn.model or "-"] for name, turn in first.items()]
    return grid(rows)


def _ratios(ratios: list[Ratio]) -> str:
    first, other = ratios[0].first, ratios[0].other
    rows = [["load", "figure", first, other, f"{first}/{other}", "95 % interval"]]
    rows += [
        [
            ratio.load,
            ratio.figure,
            number(ratio.first_median),
            number(ratio.other_median),
            f"{ratio.ratio.median:.3f}",
            f"{ratio.ratio.low:.3f} to {ratio.ratio.high:.3f}",
        ]
        for ratio in ratios
    ]
    return grid(rows)


def _remarks(comparison: Comparison) -> Iterator[str]:
    for turn in comparison.turns:
        name = f"{turn.name}, round {turn.round + 1}, "
        yield from remarks_of([level.figures for level in turn.levels], name)
        if turn.idle_cpu > _BUSY_NEIGHBOUR:
            yield (
                f"{name}the servers that stood idle took {turn.idle_cpu:.0%} of a core: they were "
                "in the way. Measure without --keep."
            )
