"""Bringing the adapters of `--lora-adapters` here, so that a worker finds local files. Blocking."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from backplane_core.backend import AdapterSource, ModelSource, ProgressSink
from backplane_core.errors import ModelError
from backplane_core.file_labels import has_label

from backplane_launcher.adapter_names import AdapterName, parse_adapters
from backplane_launcher.model_source import HubId, locate
from backplane_launcher.settings import LaunchSettings

_GGUF: Final = ".gguf"
_WEIGHTS: Final = (".safetensors", _GGUF)
# Beside the weights: the adapter's configuration, and tokens that it adds.
_WANTED: Final = (*_WEIGHTS, ".json", ".model", ".jinja")


def bring_adapters(
    settings: LaunchSettings, environ: Mapping[str, str], progress: ProgressSink
) -> tuple[AdapterSource, ...]:
    """Every adapter with its local folder or file, in the order they were named.

    Raises:
        ModelError: one is not to be had, or holds no weights that are read here, or not those
            that the id names after a colon.
        UsageError: the flag's text is wrong.
    """
    return tuple(
        AdapterSource(name=name.name, path=_local_path(name, settings, environ, progress))
        for name in parse_adapters(settings.lora_adapters)
    )


def _local_path(
    name: AdapterName,
    settings: LaunchSettings,
    environ: Mapping[str, str],
    progress: ProgressSink,
) -> str:
    found = locate(name.origin, revision=name.revision, gguf_file=None)
    if not isinstance(found, HubId):
        return _local_adapter(name, found)
    from backplane_launcher.hub import HubModel  # noqa: PLC0415 - slow to load, rarely needed

    progress("list", None, f"adapter {found.repository} on the Hub")
    hub = HubModel(found, environ, cache=settings.huggingface_hub_cache)
    source = hub.list_files()
    beside = [file for file in source.files if "/" not in file and file.endswith(_WANTED)]
    _check_weights(name, beside)
    if found.variant is None:
        return str(Path(hub.download(source, beside, progress).path or ""))
    wanted = _of_variant(name, found.variant, beside)
    # The file, not its folder: the cache may hold its siblings too.
    return str(Path(hub.download(source, [wanted], progress).path or "", wanted))


def _local_adapter(name: AdapterName, found: ModelSource) -> str:
    if found.path is None:
        raise ModelError(
            f"adapter {name.origin} is an id that only a backend makes",
            remedy="name a Hub id, a folder or a file",
        )
    if name.revision is not None:
        raise ModelError(
            f"adapter {name.origin} lies here and has no revisions, so not {name.revision}",
            remedy=f"write ./{name.origin}@{name.revision} if that is the path, or leave it out",
        )
    _check_weights(name, found.files)
    if found.variant is None:
        return found.path
    return str(Path(found.path, _of_variant(name, found.variant, found.files)))


def _of_variant(name: AdapterName, variant: str, files: Sequence[str]) -> str:
    """The one GGUF file that the id means by what follows its colon."""
    found = sorted(file for file in files if file.endswith(_GGUF))
    fitting = [file for file in found if has_label(file.removesuffix(_GGUF), variant)]
    if len(fitting) == 1:
        return fitting[0]
    said = (
        f"has several GGUF files called {variant}: {', '.join(fitting)}"
        if fitting
        else f"has no GGUF called {variant}; it has: {', '.join(found) or 'none'}"
    )
    raise ModelError(f"adapter {name.origin} {said}", remedy="name one of these after the colon")


def _check_weights(name: AdapterName, files: Sequence[str]) -> None:
    if any(file.endswith(_WEIGHTS) for file in files):
        return
    pickled = any(file.endswith((".bin", ".pt")) for file in files)
    raise ModelError(
        f"adapter {name.origin} holds no safetensors and no GGUF file"
        + (", only pickled weights, which are never loaded" if pickled else ""),
        remedy="convert it to safetensors or GGUF, or name another adapter",
    )
