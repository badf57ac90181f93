"""Finding the installed backends, once, at start-up.

The loop is ours around pluggy: every load is guarded, so one broken plugin is listed with its
error and hides nobody else. Nobody but this module touches the plugin manager.
"""

import importlib
import os
from collections.abc import Collection
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

import msgspec
import pluggy

from backplane_core import hookspecs
from backplane_core.backend import Backend, BackendFacts, setting_fields
from backplane_core.errors import BackendError
from backplane_core.version import PROTOCOL, Protocol

ENTRY_POINT_GROUP = "backplane"
EXTRA_PLUGINS_VARIABLE = "BACKPLANE_EXTRA_PLUGINS"


class DuplicateBackendError(BackendError):
    """Two plugins register the same backend name: nobody can say which is meant."""


class RegisteredBackend(msgspec.Struct, frozen=True, kw_only=True):
    """A backend class and the distribution it came from."""

    backend: type[Backend]
    distribution: str | None = None
    version: str | None = None

    def facts(self) -> BackendFacts:
        """The class's static facts as data."""
        return BackendFacts(
            name=self.backend.name,
            protocol=(self.backend.protocol[0], self.backend.protocol[1]),
            distribution=self.distribution,
            version=self.version,
            summary=self.backend.summary,
            settings=setting_fields(self.backend.settings),
            quantizations=tuple(self.backend.quantizations),
            spans_devices=self.backend.spans_devices,
            priority=self.backend.priority,
        )


class Registry:
    """What discovery found: backends by name, and plugins that failed with their error."""

    def __init__(self) -> None:
        self.backends: dict[str, RegisteredBackend] = {}
        self.failures: dict[str, str] = {}

    def create(self, name: str) -> Backend:
        """An instance of the backend called `name`.

        Raises:
            BackendError: no such backend, or its plugin failed to load.
        """
        if name in self.backends:
            return self.backends[name].backend()
        if name in self.failures:
            raise BackendError(
                f"backend {name} failed to load: {self.failures[name]}",
                remedy="reinstall its package, or choose another --backend",
            )
        raise BackendError(
            f"no backend is called {name}",
            remedy=f"installed: {', '.join(sorted(self.backends)) or 'none'}",
        )

    def facts(self) -> list[BackendFacts]:
        """All backends' facts, failed plugins included, by name."""
        found: list[BackendFacts] = []
        for name, registered in self.backends.items():
            try:
                found.append(registered.facts())
            except Exception as error:  # noqa: BLE001 - a plugin's class can raise anything
                found.append(BackendFacts(name=name, error=one_line(error)))
        found += [BackendFacts(name=name, error=error) for name, error in self.failures.items()]
        return sorted(found, key=lambda facts: facts.name)


def discover(*, only: Collection[str] | None = None) -> Registry:
    """Load the plugins of this interpreter and collect the backends they register.

    Args:
        only: names of entry points to load; None is all of them.

    Plugins are the entry points of group "backplane", sorted by name, and the modules named
    in BACKPLANE_EXTRA_PLUGINS (comma-separated), for plugins that are not installed.

    Raises:
        DuplicateBackendError: two plugins register the same backend name.
    """
    registry = Registry()
    for name, entry_point in plugin_candidates(only):
        try:
            _register(registry, name, entry_point)
        except DuplicateBackendError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin can raise anything
            registry.failures[name] = one_line(error)
    return registry


def plugin_candidates(only: Collection[str] | None) -> list[tuple[str, EntryPoint | None]]:
    """The plugins to load, by name: installed ones with their entry point, then named modules."""
    installed = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)
    extra = os.environ.get(EXTRA_PLUGINS_VARIABLE, "")
    candidates: list[tuple[str, EntryPoint | None]] = [(point.name, point) for point in installed]
    candidates += [(name.strip(), None) for name in extra.split(",") if name.strip()]
    return [pair for pair in candidates if only is None or pair[0] in only]


def _register(registry: Registry, name: str, entry_point: EntryPoint | None) -> None:
    found: list[type[Backend]] = []
    load_plugin(name, entry_point).backplane_register_backends(register=found.append)
    distribution = entry_point.dist.name if entry_point and entry_point.dist else None
    for backend in found:
        _check(backend)
        if other := registry.backends.get(backend.name):
            raise DuplicateBackendError(
                f"backend {backend.name} is registered twice: by {name} and by "
                f"{other.distribution or other.backend.__module__}",
                remedy="uninstall one of them",
            )
        registry.backends[backend.name] = RegisteredBackend(
            backend=backend, distribution=distribution, version=_version(distribution)
        )


def load_plugin(name: str, entry_point: EntryPoint | None) -> pluggy.HookRelay:
    """Import a plugin, and nothing else; the hooks to call it by. It can raise anything."""
    return hooks_of(name, entry_point.load() if entry_point else importlib.import_module(name))


def hooks_of(name: str, module: object) -> pluggy.HookRelay:
    """The hooks of one plugin.

    A manager of its own for each: its hooks are called knowing whose they are, and a misspelt
    hook is the error of that plugin alone.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=name)
    manager.check_pending()
    return manager.hook


def _check(backend: type[Backend]) -> None:
    protocol = Protocol(*backend.protocol)
    if not PROTOCOL.accepts(protocol):
        raise ImportError(
            f"backend {backend.name} speaks contract {protocol}, this Backplane speaks {PROTOCOL}; "
            "install matching versions"
        )


def _version(distribution: str | None) -> str | None:
    try:
        return version(distribution) if distribution else None
    except PackageNotFoundError:
        return None


def one_line(error: BaseException) -> str:
    """An error's type and text, as lists of plugins show it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
