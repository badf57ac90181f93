"""Trends, counters and rates as k6 has them, and its summary's lines."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_WIDTH = 34


def percentile(values: list[float], share: float) -> float:
    """The `share`th percentile (0…1), between neighbours by line; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass
class Trend:
    """Values in milliseconds, of which the spread is told."""

    values: list[float] = field(default_factory=list)

    def add(self, milliseconds: float) -> None:
        """Take one more."""
        self.values.append(milliseconds)

    def shares(self) -> dict[str, float]:
        """Average, least, median, most, and two percentiles."""
        if not self.values:
            return {}
        return {
            "avg": sum(self.values) / len(self.values),
            "min": min(self.values),
            "med": percentile(self.values, 0.5),
            "max": max(self.values),
            "p(90)": percentile(self.values, 0.9),
            "p(95)": percentile(self.values, 0.95),
        }


@dataclass
class Measures:
    """Everything a run counts, under k6's and the script's own names."""

    http_req_duration: Trend = field(default_factory=Trend)
    iteration_duration: Trend = field(default_factory=Trend)
    time_per_token: Trend = field(default_factory=Trend)
    iterations: int = 0
    interrupted: int = 0
    dropped_iterations: int = 0
    http_reqs: int = 0
    failed: int = 0
    input_tokens: int = 0
    new_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.input_tokens + self.new_tokens

    @property
    def failed_share(self) -> float:
        """`http_req_failed`: 0 with no request at all, as in k6."""
        return self.failed / self.http_reqs if self.http_reqs else 0.0

    def fail(self, what: str) -> None:
        """Count a request that was not answered with success."""
        self.failed += 1
        self.failures[what] = self.failures.get(what, 0) + 1

    def trends(self) -> dict[str, dict[str, float]]:
        """All trends by name."""
        return {
            "http_req_duration": self.http_req_duration.shares(),
            "iteration_duration": self.iteration_duration.shares(),
            "time_per_token": self.time_per_token.shares(),
        }

    def counters(self) -> dict[str, int]:
        """All counters by name."""
        return {
            "http_reqs": self.http_reqs,
            "iterations": self.iterations,
            "dropped_iterations": self.dropped_iterations,
            "interrupted_iterations": self.interrupted,
            "input_tokens": self.input_tokens,
            "new_tokens": self.new_tokens,
            "tokens": self.tokens,
        }


def summary(measures: Measures, seconds: float) -> list[str]:
    """The lines that k6 would print."""
    verdict = "ok" if measures.failed == 0 else "FAILED"
    share = f"{measures.failed_share:.2%}"
    passed = measures.http_reqs - measures.failed
    lines = [
        _line("http_req_failed", f"{share}  {measures.failed} of {measures.http_reqs}"),
        f"    threshold rate==0: {verdict} ({passed} answered)",
    ]
    for name, shares in measures.trends().items():
        spread = "  ".join(f"{key}={value:.2f}ms" for key, value in shares.items()) or "no values"
        lines.append(_line(name, spread))
    for name, count in measures.counters().items():
        lines.append(_line(name, f"{count}  {count / seconds:.2f}/s"))
    lines += [f"    {count} x {what}" for what, count in sorted(measures.failures.items())]
    return lines


def _line(name: str, value: str) -> str:
    return f"  {name:.<{_WIDTH}}: {value}"
