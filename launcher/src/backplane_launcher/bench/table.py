"""Figures as tables for people, in plain text that is Markdown too."""

from collections.abc import Iterator, Sequence
from typing import Final

from backplane_launcher.bench.figures import BUSY_GENERATOR, Figures
from backplane_launcher.bench.statistics import Distribution

_MIB: Final = 2**20
_SHOWN: Final = ("mean", "p50", "p90", "p95", "p99", "max")


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of which names the columns; numbers stand right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(rows[0], widths)]
    lines.append("|" + "|".join(f"{'-' * (width + 1)}:" for width in widths) + "|")
    lines += [_line(row, widths) for row in rows[1:]]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(map(str.rjust, cells, widths)) + " |"


def number(value: float | None) -> str:
    """Three digits at least, none that mean nothing."""
    if value is None:
        return "-"
    if abs(value) >= 100:  # noqa: PLR2004 - three digits
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004 - likewise


def tables(levels: Sequence[Figures]) -> str:
    """All there is to tell of one server's levels."""
    parts = [_rates(levels)]
    if any(level.num_ok for level in levels):
        parts.append(_latencies(levels))
    if any(level.processes for level in levels):
        parts.append(_processes(levels))
    parts += remarks_of(levels)
    return "\n\n".join(parts)


def label_of(level: Figures) -> str:
    """The level's name in a row."""
    return f"{level.concurrency}" if level.rate is None else f"{level.rate:g}/s"


def _rates(levels: Sequence[Figures]) -> str:
    head = ["load", "requests", "failed", "req/s", "output tok/s", "total tok/s"]
    has_goodput = any(level.goodput is not None for level in levels)
    has_cached = any(level.num_cached_tokens is not None for level in levels)
    head += ["goodput/s"] if has_goodput else []
    head += ["prompt tok", "output tok", "tok/event"]
    head += ["cached tok"] if has_cached else []
    rows = [head]
    for level in levels:
        row = [
            label_of(level),
            f"{level.num_requests}",
            f"{level.num_requests - level.num_ok}",
            number(level.requests_per_s),
            number(level.output_tokens_per_s),
            number(level.total_tokens_per_s),
        ]
        row += [number(level.goodput)] if has_goodput else []
        row += [
            _count(level.num_prompt_tokens),
            _count(level.num_output_tokens),
            number(level.tokens_per_event),
        ]
        if has_cached:
            row.append(_count(level.num_cached_tokens))
        rows.append(row)
    return grid(rows)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _latencies(levels: Sequence[Figures]) -> str:
    rows = [["load", "ms", *_SHOWN]]
    for level in levels:
        named = {
            "TTFT": level.ttft_ms,
            "TPOT": level.tpot_ms,
            "ITL": level.itl_ms,
            "E2E": level.e2e_ms,
        }
        rows += [
            [label_of(level), name, *_cells(distribution)]
            for name, distribution in named.items()
            if distribution is not None
        ]
    return grid(rows)


def _cells(distribution: Distribution) -> list[str]:
    return [number(getattr(distribution, name)) for name in _SHOWN]


def _processes(levels: Sequence[Figures]) -> str:
    rows = [["load", "process", "pid", "CPU s", "CPU us/tok", "RSS MiB", "PSS MiB"]]
    for level in levels:
        label, uses = label_of(level), level.processes
        rows += [
            [
                label,
                use.name,
                f"{use.pid}",
                number(use.cpu_s),
                number(use.cpu_us_per_token),
                number(use.rss / _MIB),
                number(use.pss / _MIB) if use.pss else "-",
            ]
            for use in uses
        ]
        if len(uses) > 1:
            cpu_s = number(sum(use.cpu_s for use in uses))
            pss = number(sum(use.pss for use in uses) / _MIB) if all(u.pss for u in uses) else "-"
            rows.append([label, "all", "", cpu_s, number(level.cpu_us_per_token), "-", pss])
    return grid(rows)


def remarks_of(levels: Sequence[Figures], name: str = "") -> Iterator[str]:
    """What a reader must know beside the figures; each sentence begins with `name`."""
    for level in levels:
        label = f"{name}{label_of(level)}: "
        for failure in level.failures:
            yield f"{label}{failure.num} failed, {failure.kind}: {failure.message}"
        if level.num_counted_by_events:
            yield (
                f"{label}of {level.num_counted_by_events} answers the server did not say how many "
                "tokens they have; their events are counted instead."
            )
        if level.num_ok and level.generator_cpu > BUSY_GENERATOR:
            yield (
                f"{label}this program took {level.generator_cpu:.0%} of a core: the figures are "
                "in part its own. Lower the load, or send it from several machines."
            )
