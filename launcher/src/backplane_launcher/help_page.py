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
Usage: backplane [OPTIONS]                    serve a model over HTTP (TGI's and OpenAI's APIs)
       backplane backends                     list what can run here, and what is missing
       backplane download-weights MODEL       bring a model here, and serve nothing
       backplane quantize MODEL OUT --type T  write a model with its weights as T
       backplane print-schema                 print the API as an OpenAPI document
       backplane detect-watermark FILE        say whether a text bears a watermark
       backplane bench                        measure how fast servers answer
       backplane bench engine                 measure an engine without a server

`backplane COMMAND --help` lists a command's options. Without --model-id the bundled demo model is
served."""

_CLOSING = """\
Every flag can be set by the environment too: --max-batch-size by BACKPLANE_MAX_BATCH_SIZE or,
as in TGI, MAX_BATCH_SIZE. The command line beats the environment."""


def command_app(app: App, command: str) -> App:
    """The application of a command, which may be one of another's, such as "bench engine"."""
    for word in command.split():
        app = app[word]
    return app


def render_help(app: App, command: str | None) -> str:
    """The page of a command, or of serving; as wide as the terminal allows, 100 columns at most."""
    width = min(100, shutil.get_terminal_size().columns)
    if command is None:
        return "\n\n".join([_INTRODUCTION, *_sections(app, width), _CLOSING]) + "\n"
    own = command_app(app, command)
    return "\n\n".join([_usage(command, own), *_sections(own, width)]) + "\n"


def _usage(command: str, app: App) -> str:
    arguments: Any = app.assemble_argument_collection()
    words = [_placeholder(argument) for argument in arguments if _is_positional(argument)]
    usage = " ".join(["Usage: backplane", command, *words, "[OPTIONS]"])
    text = app.help.strip()
    return f"{usage}\n\n{text}" if text else usage


def _placeholder(argument: Any) -> str:
    word = argument.names[0].upper()
    return word if argument.required else f"[{word}]"


def _is_positional(argument: Any) -> bool:
    return not argument.children and not argument.names[0].startswith("-")


def _sections(app: App, width: int) -> list[str]:
    groups: dict[tuple[Any, str], list[str]] = {}
    arguments: Any = app.assemble_argument_collection()
    for argument in arguments:
        if argument.children or not argument.parse or not argument.show:
            continue
        group = argument.parameter.group[0]
        order = group.sort_key if isinstance(group.sort_key, int) else 0
        groups.setdefault((order, group.name), []).extend(_entry(argument, width))
    return ["\n".join([f"{name}:", *lines]) for (_, name), lines in sorted(groups.items())]


def _entry(argument: Any, width: int) -> Iterator[str]:
    # Unique: of an optional boolean, cyclopts names the negatives once for each of its types.
    names = dict.fromkeys([*argument.names, *argument.negatives])
    yield f"  {', '.join(names)}{value_of(argument.hint)}"
    yield from textwrap.wrap(
        f"{argument.parameter.help}{_default(argument)}",
        width,
        initial_indent=" " * 8,
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
    )


def value_of(hint: Any) -> str:
    """What stands behind a flag of this type, with a space before it; nothing for a boolean."""
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
