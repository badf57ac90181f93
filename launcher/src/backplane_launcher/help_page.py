"""The text of `backplane --help`: every flag by group, the backends' own included.

Written by hand from cyclopts' argument collection, because its rich renderer takes longer to
load than the rest of the command.
"""

import shutil
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from cyclopts import App

from backplane_launcher.environment import optional_parts

_INTRODUCTION = """\
Usage: backplane [OPTIONS]              serve a model over HTTP (TGI's and OpenAI's APIs)
       backplane backends [--json]      list what can run here, and what is missing

Without --model-id the bundled demo model is served."""

_CLOSING = """\
Every flag can be set by the environment too: --max-batch-size by BACKPLANE_MAX_BATCH_SIZE or,
as in TGI, MAX_BATCH_SIZE. The command line beats the environment."""


def render_help(app: App) -> str:
    """The page, as wide as the terminal allows, 100 columns at most."""
    width = min(100, shutil.get_terminal_size().columns)
    groups: dict[tuple[Any, str], list[str]] = {}
    arguments: Any = app.assemble_argument_collection()
    for argument in arguments:
        if argument.children or not argument.parse or not argument.show:
            continue
        group = argument.parameter.group[0]
        groups.setdefault((group.sort_key, group.name), []).extend(_entry(argument, width))
    sections = ["\n".join([f"{name}:", *lines]) for (_, name), lines in sorted(groups.items())]
    return "\n\n".join([_INTRODUCTION, *sections, _CLOSING]) + "\n"


def _entry(argument: Any, width: int) -> Iterator[str]:
    # Unique: of an optional boolean, cyclopts names the negatives once for each of its types.
    names = dict.fromkeys([*argument.names, *argument.negatives])
    yield f"  {', '.join(names)}{_value(argument.hint)}"
    yield from textwrap.wrap(
        f"{argument.parameter.help}{_default(argument)}",
        width,
        initial_indent=" " * 8,
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
    )


def _value(hint: Any) -> str:
    hint = next((part for part in optional_parts(hint) if part is not type(None)), hint)
    if hint is bool:
        return ""  # its negative, where it has one, is among the names
    if get_origin(hint) is Literal:
        return f" {'|'.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        return " VALUE ..."
    return {int: " N", float: " NUMBER"}.get(hint, " VALUE")


def _default(argument: Any) -> str:
    default = argument.field_info.default
    if default in (None, (), False) or default is argument.field_info.empty:
        return ""
    return f" [default: {default}]"
