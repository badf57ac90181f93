#!/usr/bin/env python3
"""Writes docs/command-line.md from the parser; `--check` only says whether it is up to date."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from backplane_launcher.catalogue import Catalogue
from backplane_launcher.environment import EnvironmentFlags, variables_of
from backplane_launcher.help_page import command_app, value_of
from backplane_launcher.parser import COMMANDS, Parser
from backplane_launcher.settings.flag import REFUSED, REPLACED
from source_files import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PAGE = ROOT / "docs" / "command-line.md"

_HEAD = """\
# Command line

Made from the parser by `scripts/command_line_page.py`; a test fails when it is out of date.
[launcher.md](launcher.md) says how the flags work together.

    backplane [OPTIONS]                    serve a model
    backplane COMMAND [OPTIONS]            one of the commands below

A variable is read where the command line leaves its flag alone; of several the first that is set
counts. Booleans take `1`, `0`, `true` and `false`, on the command line too (`--json-output=true`).
A backend's own flags, `--<backend>.<setting>`, are on its page and in `backplane --help`.
"""
_REPLACED = """\
These mean nothing here, because something else stands in their place. A command line or an
environment that has them starts all the same, and one line of the log says so of each and what
replaces it; of `--otlp-…` it is a warning, since traces that were asked for are not sent.
"""
_REFUSED = """\
Passing over these would miss what was meant by them: exit code 2, with the sentence below. By
themselves, `NGROK_AUTHTOKEN` and `NGROK_EDGE` are passed over with a warning: they are ngrok's own
variables, and TGI does nothing with them unless `NGROK` is true.
"""


def page() -> str:
    """The whole page."""
    catalogue = Catalogue(facts=())
    app = Parser(known=catalogue, source=EnvironmentFlags({}), named=None).build()
    parts = [_HEAD]
    groups = _groups(app)
    parts += [
        f"## {name}\n\n{_table(rows)}"
        for name, rows in groups.items()
        if name not in (REPLACED.name, REFUSED.name)
    ]
    parts.append(f"## {REPLACED.name}\n\n{_REPLACED}\n{_table(groups[REPLACED.name])}")
    parts.append(f"## {REFUSED.name}\n\n{_REFUSED}\n{_table(groups[REFUSED.name])}")
    parts.append("## Commands\n")
    for command in COMMANDS:
        own = command_app(app, command)
        rows = [argument for rows in _groups(own).values() for argument in rows]
        parts.append(f"### `backplane {command}`\n\n{own.help.strip()}\n")
        if rows:
            parts.append(_table(rows))
    return "\n".join(parts)


def _groups(app: Any) -> dict[str, list[Any]]:
    groups: dict[tuple[int, str], list[Any]] = {}
    for argument in app.assemble_argument_collection():
        if argument.children or not argument.parse or not argument.show:
            continue
        group = argument.parameter.group[0]
        order = group.sort_key if isinstance(group.sort_key, int) else 0
        groups.setdefault((order, group.name), []).append(argument)
    return {name: rows for (_, name), rows in sorted(groups.items())}


def _table(arguments: Iterable[Any]) -> str:
    lines = ["| Flag | Variables | Default | Meaning |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(_cells(argument))} |" for argument in arguments]
    return "\n".join(lines) + "\n"


def _cells(argument: Any) -> Iterator[str]:
    names = [name if name.startswith("-") else name.upper() for name in argument.names]
    value = value_of(argument.hint).strip().replace("|", "\\|")
    yield ", ".join(f"`{name}`" for name in names) + (f" {value}" if value else "")
    yield ", ".join(f"`{name}`" for name in variables_of(argument.names)) or "none"
    yield _default(argument)
    yield argument.parameter.help.replace("|", "\\|")


def _default(argument: Any) -> str:
    default = argument.field_info.default
    if argument.required or default is argument.field_info.empty:
        return "required"
    if default is False:
        return "off"
    return "none" if default in (None, ()) else f"`{default}`"


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` compare it; the exit status."""
    text = page()
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE.relative_to(ROOT)} is out of date: python scripts/command_line_page.py")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
