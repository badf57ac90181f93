"""The hooks a plugin may implement. pluggy finds backends at start-up; nothing hot is a hook."""

from collections.abc import Callable
from typing import Any

import pluggy

from backplane_core.backend import Backend
from backplane_core.tool_parsers import ToolParser

PROJECT = "backplane"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

RegisterBackend = Callable[[type[Backend]], Any]
RegisterToolParser = Callable[[type[ToolParser]], Any]


@hookspec
def backplane_register_backends(register: RegisterBackend) -> None:
    """Call `register` with each `Backend` class the plugin provides."""


@hookspec
def backplane_register_tool_parsers(register: RegisterToolParser) -> None:
    """Call `register` with each `ToolParser` class the plugin provides."""
