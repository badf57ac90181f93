"""The families of tool calls at hand, and which of them a model writes."""

import logging
from typing import Final

from backplane_core.errors import SetupError
from backplane_core.tool_parser_registry import AUTO, FoundToolParsers, discover_tool_parsers
from backplane_core.tool_parsers import ToolParser

from backplane_server.tools import builtin
from backplane_server.tools.generic_json import JsonParser

_log = logging.getLogger(__name__)

_BUILTIN: Final = "backplane-server"


class ToolCatalogue:
    """Families by name; plugins' go before the built-in ones where a template is matched."""

    def __init__(self, found: FoundToolParsers) -> None:
        self._parsers = found.parsers
        self._failures = found.failures

    @classmethod
    def discovered(cls) -> "ToolCatalogue":
        """Built-in families and those of the installed plugins; failed ones are logged.

        Raises:
            SetupError: two plugins register the same name.
        """
        found = discover_tool_parsers({_BUILTIN: builtin})
        for name, error in found.failures.items():
            _log.warning(
                "plugin %s failed to load, so its tool parsers are missing: %s", name, error
            )
        return cls(found)

    @property
    def names(self) -> tuple[str, ...]:
        """What `--tool-call-parser` takes besides "auto"."""
        return tuple(sorted(self._parsers))

    def check(self, flag: str) -> None:
        """Look at a flag before there is a model.

        Raises:
            SetupError: no family has that name.
        """
        if flag == AUTO or flag in self._parsers:
            return
        failed = "".join(f"; plugin {name} failed: {why}" for name, why in self._failures.items())
        raise SetupError(
            f"no tool parser is called {flag}{failed}",
            remedy=f"give --tool-call-parser one of: {AUTO}, {', '.join(self.names)}",
        )

    def choose(self, flag: str, template: str | None) -> type[ToolParser]:
        """The family to read and write calls in.

        Args:
            flag: a name, or "auto": the first family whose marks the template has, and generic
                JSON where none has.
            template: the chat template in force.

        Raises:
            SetupError: no family has that name.
        """
        self.check(flag)
        if flag != AUTO:
            return self._parsers[flag]
        return next(
            (parser for parser in self._parsers.values() if _matches(parser, template or "")),
            JsonParser,
        )


def _matches(parser: type[ToolParser], template: str) -> bool:
    try:
        return parser.matches(template)
    except Exception:  # noqa: BLE001 - a plugin can raise anything; its family is not the one then
        _log.exception("tool parser %s failed to look at the chat template", parser.name)
        return False
