"""Bringing the adapters of `--lora-adapters` here, so that a worker finds local files. Blocking."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backplane_core.backend import AdapterSource, ProgressSink
from backplane_core.errors import ModelError

from backplane_launcher.adapter_names import AdapterName, parse_adapters
from backplane_launcher.model_source import HubId, locate
from backplane_launcher.settings import LaunchSettings

_WEIGHTS: Final = (".safetensors", ".gguf")
# Beside the weights: the adapter's configuration, and tokens that it adds.
_WANTED: Final = (*_WEIGHTS, ".json", ".model", ".jinja")


def bring_adapters(
    settings: LaunchSettings, environ: Mapping[str, str], progress: ProgressSink
) -> tuple[AdapterSource, ...]:
    """Every adapter with its local folder or file, in the order they were named.

    Raises:
        ModelError: one is not to be had, or holds no weights that are read here.
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
        _check_weights(name, found.files)
        if found.path is None:
            raise ModelError(
                f"adapter {name.origin} is an id that only a backend makes",
                remedy="name a Hub id, a folder or a file",
            )
        return found.path
    from backplane_launcher.hub import HubModel  # noqa: PLC0415 - slow to load, rarely needed

    progress("list", None, f"adapter {found.repository} on the Hub")
    hub = HubModel(found, environ, cache=settings.huggingface_hub_cache)
    source = hub.list_files()
    wanted = [file for file in source.files if "/" not in file and file.endswith(_WANTED)]
    _check_weights(name, wanted)
    downloaded = hub.download(source, wanted, progress)
    return str(Path(downloaded.path or ""))


def _check_weights(name: AdapterName, files: list[str] | tuple[str, ...]) -> None:
    if any(file.endswith(_WEIGHTS) for file in files):
        return
    pickled = any(file.endswith((".bin", ".pt")) for file in files)
    raise ModelError(
        f"adapter {name.origin} holds no safetensors and no GGUF file"
        + (", only pickled weights, which are never loaded" if pickled else ""),
        remedy="convert it to safetensors or GGUF, or name another adapter",
    )
