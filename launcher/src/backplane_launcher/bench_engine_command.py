"""`backplane bench engine`: the engine that would serve a model, measured in its own Python."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TextIO

from backplane_core import engine_benchmark
from backplane_core.process import configure_logging
from backplane_core.sampling import SamplingParams, Watermark

from backplane_launcher.bench.engine_report import engine_report, engine_tables
from backplane_launcher.bench.report import check_destination, deliver
from backplane_launcher.choice import check_name
from backplane_launcher.commands import BenchEngineCommand, ServeCommand
from backplane_launcher.console_progress import ConsoleProgress
from backplane_launcher.launch_documents import child_environment, runner_spec
from backplane_launcher.model_source import from_folder, locate
from backplane_launcher.preparation import prepare
from backplane_launcher.settings.bench_engine import BenchEngineSettings
from backplane_launcher.usage import UsageError


def bench_engine(command: BenchEngineCommand, environ: Mapping[str, str], output: TextIO) -> int:
    """Bring the model here, measure, and print tables to `output`.

    Raises:
        UsageError: the sizes cannot be meant.
        BackplaneError: the model is not to be had, or has no room for such a batch.
    """
    bench, settings, catalogue = command.bench, command.settings, command.catalogue
    if not bench.batch_size or 0 in bench.batch_size:
        raise UsageError("--batch-size 0 is no batch", remedy="give 1 or more")
    check_destination(bench.json)
    configure_logging(settings.log_level, as_json=settings.json_output, label="bench")
    check_name(settings.backend, catalogue.facts)
    progress = ConsoleProgress(sys.stderr, as_json=settings.json_output)
    if settings.weights_cache_override is not None:
        found = from_folder(
            settings.weights_cache_override, settings.model_id, gguf_file=settings.gguf_file
        )
    else:
        found = locate(settings.model_id, revision=settings.revision, gguf_file=settings.gguf_file)
    serving = ServeCommand(
        settings=settings, backend_settings=command.backend_settings, catalogue=catalogue
    )
    prepared = prepare(serving, found, environ, progress)
    chosen = command.backend_settings.get(prepared.backend, {})
    order = engine_benchmark.Order(
        backend=prepared.backend,
        spec=runner_spec(prepared.model, prepared.engine, chosen),
        batch_sizes=bench.batch_size,
        sequence_length=bench.sequence_length,
        decode_length=bench.decode_length,
        runs=bench.runs,
        warmups=bench.warmups,
        sampling=_sampling(bench),
        top_logprobs=bench.top_n_tokens,
        seed=bench.seed,
    )
    outcome = engine_benchmark.run(prepared.python, order, progress, child_environment(environ))
    report = engine_report(outcome, asdict(bench))
    deliver(report, engine_tables(report), bench.json, output)
    return 0


def _sampling(bench: BenchEngineSettings) -> SamplingParams:
    return SamplingParams(
        watermark=Watermark() if bench.watermark else None,
        temperature=bench.temperature,
        top_k=bench.top_k,
        top_p=bench.top_p,
        typical_p=bench.typical_p,
        repetition_penalty=bench.repetition_penalty,
        frequency_penalty=bench.frequency_penalty,
        seed=bench.seed,
    )
