"""The command-line side of `backplane bench` and `backplane bench engine`."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, Final

from cyclopts import App

from backplane_launcher import backend_flags
from backplane_launcher.catalogue import Catalogue
from backplane_launcher.commands import BenchCommand, BenchEngineCommand
from backplane_launcher.settings import LaunchSettings, subset_of
from backplane_launcher.settings.bench import BenchSettings
from backplane_launcher.settings.bench_engine import BenchEngineSettings
from backplane_launcher.settings.engine import BackendSettings
from backplane_launcher.settings.limits import LimitSettings
from backplane_launcher.signatures import mounted, settings_from, with_signature

# Of a launch, what concerns a runner; what concerns servers and their clients is left out.
_MODEL: Final = (
    "model_id",
    "revision",
    "gguf_file",
    "weights_cache_override",
    "trust_remote_code",
    "huggingface_hub_cache",
)
_NOT_A_RUNNERS: Final = frozenset(
    {
        "num_replicas",
        "max_client_batch_size",
        "max_best_of",
        "max_stop_sequences",
        "max_top_n_tokens",
    }
)


def bench_app(known: Catalogue, theirs: Sequence[inspect.Parameter]) -> App:
    """Both commands. `theirs` are the settings of the backends, as they are mounted for serving."""
    app = App(name="bench", version_flags=(), help_flags=(), result_action="return_value")
    app.default(with_signature(_bench, [mounted("bench", BenchSettings)]))
    fields = [
        *_MODEL,
        *(
            field.name
            for part in (BackendSettings, LimitSettings)
            for field in dataclasses.fields(part)
            if field.name not in _NOT_A_RUNNERS
        ),
        "json_output",
        "log_level",
    ]

    def engine(**values: Any) -> BenchEngineCommand:
        """Measure an engine without a server, as TGI's text-generation-benchmark does."""
        bench = values.pop("bench", BenchEngineSettings())
        settings = settings_from({"settings": values.pop("settings", LaunchSettings())})
        chosen = {
            name: own
            for name, value in values.items()
            if (own := backend_flags.chosen_values(value))
        }
        return BenchEngineCommand(
            bench=bench, settings=settings, backend_settings=chosen, catalogue=known
        )

    own = [
        mounted("bench", BenchEngineSettings),
        mounted("settings", subset_of(LaunchSettings, fields)),
    ]
    app.command(with_signature(engine, [*own, *theirs]), name="engine")
    return app


def _bench(**values: Any) -> BenchCommand:
    """Measure how fast servers answer, ours or any other."""
    return BenchCommand(settings=values.get("bench", BenchSettings()))
