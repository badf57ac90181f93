"""What the command line says, as one frozen dataclass: flag, help and default in one place.

Knows nothing of backends' own settings (`backend_flags`) or of where a value came from
(`environment`).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from cyclopts import Parameter

from backplane_launcher.settings.engine import BackendSettings
from backplane_launcher.settings.limits import LimitSettings
from backplane_launcher.settings.model import ModelSettings
from backplane_launcher.settings.operation import OperationSettings
from backplane_launcher.settings.replaced import ReplacedSettings
from backplane_launcher.settings.server import ServerSettings


@dataclass(frozen=True, kw_only=True)
class LaunchSettings(
    ReplacedSettings,
    OperationSettings,
    LimitSettings,
    ServerSettings,
    BackendSettings,
    ModelSettings,
):
    """Everything that `backplane` takes, but the backends' own settings. None is automatic."""


def flags_of(settings: type[Any]) -> dict[str, Parameter]:
    """Each field's flag, by the field's name, in the order of declaration."""
    hints = get_type_hints(settings, include_extras=True)
    parameters = {name: hint.__metadata__[0] for name, hint in hints.items()}
    order = [name for name in settings.__dataclass_fields__ if name in parameters]
    return {name: parameters[name] for name in order}


def subset_of(settings: type[Any], names: Sequence[str]) -> type[Any]:
    """A dataclass of only these fields, their flags and defaults as in `settings`."""
    hints = get_type_hints(settings, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return dataclasses.make_dataclass(
        f"{settings.__name__}Part",
        [(name, hints[name], defaults[name]) for name in names],
        namespace={"__module__": __name__},
        frozen=True,
        kw_only=True,
    )
