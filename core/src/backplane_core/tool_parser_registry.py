"""Finding the families of tool calls that plugins add, once, when a server starts.

Every load is guarded, as for backends: a broken plugin is reported with its error and hides
nobody else. A plugin may register backends, families, or both.
"""

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Final

import msgspec
import pluggy

from backplane_core.errors import SetupError
from backplane_core.registry import hooks_of, load_plugin, one_line, plugin_candidates
from backplane_core.tool_parsers import ToolParser

AUTO: Final = "auto"  # what the flag says where no family is named
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class DuplicateToolParserError(SetupError):
    """Two plugins register a family of the same name: nobody can say which is meant."""


class FoundToolParsers(msgspec.Struct, frozen=True, kw_only=True):
    """What discovery found.

    Attributes:
        parsers: by name, in the order they were registered in, plugins' before the built-in
            ones: what a person installed goes before what came along.
        failures: plugin name → its error.
    """

    parsers: dict[str, type[ToolParser]]
    failures: dict[str, str]


def discover_tool_parsers(builtin: Mapping[str, ModuleType]) -> FoundToolParsers:
    """Load the plugins of this interpreter and collect the families they register.

    Args:
        builtin: modules that come with the caller and implement the same hook, by name.

    Raises:
        DuplicateToolParserError: two plugins register families of the same name.
    """
    found = FoundToolParsers(parsers={}, failures={})
    owners: dict[str, str] = {}
    for name, entry_point in plugin_candidates(None):
        try:
            families = _families(load_plugin(name, entry_point))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin can raise anything
            found.failures[name] = one_line(error)
        else:
            _add(found, owners, name, families)
    for name, module in builtin.items():
        _add(found, owners, name, _families(hooks_of(name, module)))
    return found


def _families(hooks: pluggy.HookRelay) -> list[type[ToolParser]]:
    families: list[type[ToolParser]] = []
    hooks.backplane_register_tool_parsers(register=families.append)
    for family in families:
        _check(family)
    return families


def _check(family: type[ToolParser]) -> None:
    if not (isinstance(family, type) and issubclass(family, ToolParser)):  # pyright: ignore[reportUnnecessaryIsInstance] -- a plugin may register anything
        raise TypeError(f"{family!r} is no ToolParser class")
    missing = sorted(family.__abstractmethods__)
    if missing:
        raise TypeError(f"{family.__name__} lacks {', '.join(missing)}")
    if not _NAME.fullmatch(family.name) or family.name == AUTO:
        raise ValueError(
            f"{family.__name__} is called {family.name!r}: a name is lower-case letters, digits, "
            f"'_', '.' and '-', and not {AUTO!r}"
        )


def _add(
    found: FoundToolParsers, owners: dict[str, str], plugin: str, families: list[type[ToolParser]]
) -> None:
    for family in families:
        if family.name in found.parsers:
            raise DuplicateToolParserError(
                f"tool parser {family.name} is registered twice: by {plugin} and by "
                f"{owners[family.name]}",
                remedy="uninstall one of them",
            )
        owners[family.name] = plugin
        found.parsers[family.name] = family
