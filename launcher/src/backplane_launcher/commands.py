"""What the command line can ask for, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backplane_launcher.catalogue import Catalogue
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.settings.bench import BenchSettings
from backplane_launcher.settings.bench_engine import BenchEngineSettings


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """Serve a model. `backend_settings` holds what was set, by backend.

    `warnings` are for the log before anything else, `notices` likewise but of less weight.
    """

    settings: LaunchSettings
    backend_settings: Mapping[str, Mapping[str, Any]]
    catalogue: Catalogue
    warnings: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BackendsCommand:
    """List the backends."""

    catalogue: Catalogue
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class DownloadCommand:
    """Bring a model and its adapters here. Of `settings` counts what concerns that."""

    settings: LaunchSettings
    catalogue: Catalogue


@dataclass(frozen=True, kw_only=True)
class QuantizeCommand:
    """Write the model of `settings` to the file `target`, its weights as `quantization`."""

    settings: LaunchSettings
    catalogue: Catalogue
    target: str
    quantization: str


@dataclass(frozen=True, kw_only=True)
class PrintSchemaCommand:
    """Print the API's description."""


@dataclass(frozen=True, kw_only=True)
class DetectWatermarkCommand:
    """Test a text for a watermark.

    `file` is a path or `-`; it holds text, or JSON token ids where `are_tokens`. Text is tokenized
    by the server at `url`.
    """

    file: str
    url: str | None
    api_key: str | None
    gamma: float
    are_tokens: bool = False
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class BenchCommand:
    """Measure servers."""

    settings: BenchSettings


@dataclass(frozen=True, kw_only=True)
class BenchEngineCommand:
    """Measure the engine that would serve. Of `settings` counts what concerns a runner."""

    bench: BenchEngineSettings
    settings: LaunchSettings
    backend_settings: Mapping[str, Mapping[str, Any]]
    catalogue: Catalogue


Command = (
    ServeCommand
    | BackendsCommand
    | DownloadCommand
    | QuantizeCommand
    | PrintSchemaCommand
    | DetectWatermarkCommand
    | BenchCommand
    | BenchEngineCommand
)
