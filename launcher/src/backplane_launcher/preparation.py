"""From a model's name to files on this machine and the backend that will serve them. Blocking."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from backplane_core.backend import Available, EngineSettings, ModelSource, ProgressSink
from backplane_core.describe import BackendDescription

from backplane_launcher.adapters import bring_adapters
from backplane_launcher.choice import AUTO, choose
from backplane_launcher.commands import ServeCommand
from backplane_launcher.launch_documents import engine_settings
from backplane_launcher.model_source import HubId
from backplane_launcher.sharding import num_shard

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """Ready for workers: `model.path` is local."""

    model: ModelSource
    engine: EngineSettings
    backend: str
    python: str


def prepare(
    command: ServeCommand,
    found: ModelSource | HubId,
    environ: Mapping[str, str],
    progress: ProgressSink,
) -> PreparedModel:
    """List, choose a backend, download what it selected, adapters too.

    Raises:
        ModelError: the model or an adapter is not to be had, or no backend serves the model.
        BackendError: the named backend, or every one, is unavailable.
        SetupError: there are fewer devices than asked for.
    """
    settings, catalogue = command.settings, command.catalogue
    hub = None
    if isinstance(found, HubId):
        from backplane_launcher.hub import HubModel  # noqa: PLC0415 - slow to load, rarely needed

        progress("list", None, f"{found.repository} on the Hub")
        hub = HubModel(found, environ, cache=settings.huggingface_hub_cache)
        found = hub.list_files()
    progress("choose", None, "asking the backends")
    names = None if settings.backend == AUTO else [settings.backend]
    description, sentences = choose(settings.backend, catalogue.ask(found, names))
    for sentence in sentences:
        _log.info("%s", sentence)
    backend = description.facts.name
    for other in sorted(set(command.backend_settings) - {backend}):
        _log.warning("settings of backend %s are not used: %s serves", other, backend)
    shards = _num_shard(command, description, environ)
    if hub is not None:
        found = hub.download(found, description.files or (), progress)
    adapters = bring_adapters(settings, environ, progress)
    return PreparedModel(
        model=found,
        engine=engine_settings(settings, num_shard=shards, adapters=adapters),
        backend=backend,
        python=catalogue.python_of(backend),
    )


def _num_shard(
    command: ServeCommand, description: BackendDescription, environ: Mapping[str, str]
) -> int | None:
    availability = description.availability
    return num_shard(
        command.settings,
        environ,
        found=availability.devices if isinstance(availability, Available) else (),
        spans_devices=description.facts.spans_devices,
    )
