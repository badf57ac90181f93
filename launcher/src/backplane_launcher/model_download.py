"""A model's files brought here for another purpose than serving it now. Blocking.

Unlike serving, this wants no device: files can be brought where nothing could run them.
"""

import logging
from collections.abc import Mapping, Sequence

from backplane_core.backend import ModelSource, ProgressSink
from backplane_core.describe import BackendDescription
from backplane_core.errors import BackplaneError

from backplane_launcher.catalogue import Catalogue
from backplane_launcher.choice import AUTO, check_name, choose
from backplane_launcher.model_source import HubId, locate
from backplane_launcher.settings import LaunchSettings

_log = logging.getLogger(__name__)


def bring_model(
    settings: LaunchSettings,
    catalogue: Catalogue,
    environ: Mapping[str, str],
    progress: ProgressSink,
) -> ModelSource:
    """The model that `settings` name, its path local: what the backend that would serve it needs.

    Raises:
        ModelError: it is not to be had, or no backend would serve it.
        BackendError: the named backend is not installed.
    """
    check_name(settings.backend, catalogue.facts)
    found = locate(settings.model_id, revision=settings.revision, gguf_file=settings.gguf_file)
    if not isinstance(found, HubId):
        return found
    from backplane_launcher.hub import HubModel  # noqa: PLC0415 - slow to load, rarely needed

    progress("list", None, f"{found.repository} on the Hub")
    hub = HubModel(found, environ, cache=settings.huggingface_hub_cache)
    listed = hub.list_files()
    names = None if settings.backend == AUTO else [settings.backend]
    chosen = _choose(settings.backend, catalogue.ask(listed, names))
    _log.info("taking the files that backend %s needs", chosen.facts.name)
    return hub.download(listed, chosen.files or (), progress)


def _choose(wanted: str, descriptions: Sequence[BackendDescription]) -> BackendDescription:
    try:
        return choose(wanted, descriptions)[0]
    except BackplaneError:
        # None that runs here would take it: then the best of those that only lack a device.
        able = [each for each in descriptions if each.files and each.facts.priority >= 0]
        if not able:
            raise
        return max(able, key=lambda each: each.facts.priority)
