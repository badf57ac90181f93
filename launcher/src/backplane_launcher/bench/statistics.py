"""Percentiles of what was measured, and how far a median of few rounds can be trusted."""

import statistics
from array import array
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

import msgspec

_NUM_RESAMPLES: Final = 10_000
_TAIL: Final = 0.025


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Some figure over many requests or gaps, in one unit."""

    num: int
    mean: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float], scale: float = 1.0) -> "Distribution | None":
        """What these values, each times `scale`, amount to; None if there are none."""
        ordered = sorted(array("d", values))
        if not ordered:
            return None
        return cls(
            num=len(ordered),
            mean=scale * sum(ordered) / len(ordered),
            min=scale * ordered[0],
            p50=scale * percentile(ordered, 50),
            p90=scale * percentile(ordered, 90),
            p95=scale * percentile(ordered, 95),
            p99=scale * percentile(ordered, 99),
            max=scale * ordered[-1],
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` percent of these lie; between two of them in proportion.

    Args:
        ordered: at least one value, in ascending order.
        share: 0…100.
    """
    place = (len(ordered) - 1) * share / 100
    lower = int(place)
    upper = min(lower + 1, len(ordered) - 1)
    low, high = ordered[lower], ordered[upper]
    # Clamped: rounding could else leave the interval that both span.
    return min(max(low + (high - low) * (place - lower), low), high)


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A median of a few values, and where it lies with a probability of 95 %."""

    median: float
    low: float
    high: float
    values: list[float]


def bootstrap_median(values: Sequence[float], seed: int = 0) -> Interval:
    """The median with its percentile bootstrap interval; the same for the same values.

    Args:
        values: at least one; the interval of a lone value is that value.
        seed: what resamples are drawn from.
    """
    random = Random(seed)  # noqa: S311 - no secret
    size = len(values)
    medians = sorted(
        statistics.median(random.choices(values, k=size)) for _ in range(_NUM_RESAMPLES)
    )
    return Interval(
        median=statistics.median(values),
        low=medians[int(_TAIL * _NUM_RESAMPLES)],
        high=medians[int((1 - _TAIL) * _NUM_RESAMPLES) - 1],
        values=list(values),
    )
