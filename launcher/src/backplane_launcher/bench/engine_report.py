"""An engine's runs as figures and tables. Latencies are in milliseconds."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from backplane_core.engine_benchmark import BatchRuns, Outcome, Run

from backplane_launcher.bench.report import Machine, this_machine
from backplane_launcher.bench.statistics import Distribution
from backplane_launcher.bench.table import grid, number

_MS: Final = 1000.0
_SHOWN: Final = ("mean", "min", "p50", "p90", "p95", "p99", "max")


class EngineFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One batch size.

    Attributes:
        prefill_ms: from submission until every sequence had its first token, over runs.
        decode_step_ms: one step of the batch after that, over all steps of all runs.
        decode_ms: all steps of a run.
        prefill_tokens_per_s: prompt tokens, over runs.
        decode_tokens_per_s: new tokens of all sequences, over runs.
        all_tokens_per_s: all new tokens in the whole time of a run.
    """

    batch_size: int
    prefill_ms: Distribution | None
    decode_step_ms: Distribution | None
    decode_ms: Distribution | None
    prefill_tokens_per_s: Distribution | None
    decode_tokens_per_s: Distribution | None
    all_tokens_per_s: Distribution | None


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """All sizes. `settings` are the flags."""

    model: str
    backend: str
    backend_version: str
    device: str
    machine: Machine
    settings: dict[str, Any]
    batches: list[EngineFigures]


def engine_report(outcome: Outcome, settings: dict[str, Any]) -> EngineReport:
    """What the runs came to."""
    return EngineReport(
        model=outcome.model_id,
        backend=outcome.backend,
        backend_version=outcome.backend_version,
        device=outcome.device,
        machine=this_machine(),
        settings=settings,
        batches=[
            _figures(batch, settings["sequence_length"], settings["decode_length"])
            for batch in outcome.batches
        ],
    )


def _figures(batch: BatchRuns, sequence_length: int, decode_length: int) -> EngineFigures:
    size = batch.batch_size
    decoded = [run for run in batch.runs if run.steps_s and run.num_decoded]

    def over(runs: Sequence[Run], value: Callable[[Run], float], scale: float = 1.0) -> Any:
        return Distribution.of(map(value, runs), scale)

    return EngineFigures(
        batch_size=size,
        prefill_ms=over(batch.runs, lambda run: run.prefill_s, _MS),
        decode_step_ms=Distribution.of((step for run in decoded for step in run.steps_s), _MS),
        decode_ms=over(decoded, lambda run: run.decode_s, _MS),
        prefill_tokens_per_s=over(batch.runs, lambda run: size * sequence_length / run.prefill_s),
        decode_tokens_per_s=over(decoded, lambda run: run.num_decoded / run.decode_s),
        all_tokens_per_s=over(
            batch.runs, lambda run: size * decode_length / (run.prefill_s + run.decode_s)
        ),
    )


def engine_tables(report: EngineReport) -> str:
    """Latencies and throughputs by step and batch size."""
    head = (
        f"{report.model} on {report.backend} {report.backend_version}, {report.device}; prompts "
        f"of {report.settings['sequence_length']} tokens, {report.settings['decode_length']} new"
    )
    latency = {
        "prefill": "prefill_ms",
        "decode, a step": "decode_step_ms",
        "decode, all": "decode_ms",
    }
    throughput = {
        "prefill": "prefill_tokens_per_s",
        "decode": "decode_tokens_per_s",
        "both, new tokens": "all_tokens_per_s",
    }
    return "\n\n".join(
        [head, _table(report, "latency, ms", latency), _table(report, "tok/s", throughput)]
    )


def _table(report: EngineReport, unit: str, steps: dict[str, str]) -> str:
    rows = [[unit, "batch", *_SHOWN]]
    for step, name in steps.items():
        for batch in report.batches:
            distribution: Distribution | None = getattr(batch, name)
            if distribution is not None:
                values = [number(getattr(distribution, part)) for part in _SHOWN]
                rows.append([step, f"{batch.batch_size}", *values])
    return grid(rows)
