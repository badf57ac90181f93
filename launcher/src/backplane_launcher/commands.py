"""What the command line can ask for, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backplane_launcher.catalogue import Catalogue
from backplane_launcher.settings import LaunchSettings


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """Serve a model. `backend_settings` holds what was set, by backend."""

    settings: LaunchSettings
    backend_settings: Mapping[str, Mapping[str, Any]]
    catalogue: Catalogue
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BackendsCommand:
    """List the backends."""

    catalogue: Catalogue
    as_json: bool = False


Command = ServeCommand | BackendsCommand
