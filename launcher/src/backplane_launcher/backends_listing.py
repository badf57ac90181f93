"""`backplane backends`: every backend with what it needs to run, for people or as JSON."""

from collections.abc import Sequence
from typing import TextIO

import msgspec
from backplane_core.backend import Available, BackendFacts, Device, Unavailable
from backplane_core.describe import BackendDescription

from backplane_launcher.catalogue import Catalogue
from backplane_launcher.choice import is_for_tests
from backplane_launcher.commands import BackendsCommand


class ListedBackend(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the listing; `version` is the package's, `engine_version` its engine's.

    `for_tests` backends are taken only by name or for models that are theirs alone.
    """

    name: str
    version: str | None
    available: bool
    engine_version: str | None
    devices: tuple[Device, ...]
    reason: str | None
    remedy: str | None
    error: str | None
    summary: str
    python: str
    for_tests: bool


def print_backends(command: BackendsCommand, output: TextIO) -> int:
    """Ask all backends and print the list; the exit code is 0 whatever they answer."""
    rows = _rows(command.catalogue)
    if command.as_json:
        output.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
    else:
        output.write(_table(rows))
    return 0


def backend_table(catalogue: Catalogue) -> str:
    """Ask all backends; the list for people."""
    return _table(_rows(catalogue))


def _rows(catalogue: Catalogue) -> list[ListedBackend]:
    rows = [
        _row(facts, description, catalogue.python_of(facts.name))
        for facts, description in zip(catalogue.facts, catalogue.ask(None), strict=True)
    ]
    rows.sort(key=lambda row: row.for_tests)  # those for tests last; else by name, as they came
    return rows


def _row(facts: BackendFacts, description: BackendDescription, python: str) -> ListedBackend:
    # `facts` are those read at start: an answer that never came has none of its own.
    availability = description.availability
    here = availability if isinstance(availability, Available) else None
    missing = availability if isinstance(availability, Unavailable) else None
    return ListedBackend(
        name=facts.name,
        version=facts.version,
        available=here is not None,
        engine_version=here.version if here else None,
        devices=here.devices if here else (),
        reason=missing.reason if missing else None,
        remedy=missing.remedy if missing else None,
        error=facts.error,
        summary=facts.summary,
        python=python,
        for_tests=is_for_tests(facts),
    )


def _table(rows: Sequence[ListedBackend]) -> str:
    if not rows:
        return "no backend is installed; install one, for example backplane-llamacpp\n"
    lines: list[str] = []
    for row in rows:
        version = f" {row.version}" if row.version else ""
        state = f"available, engine {row.engine_version}" if row.available else "not available"
        purpose = " (for tests)" if row.for_tests else ""
        lines.append(f"{row.name}{version}{purpose}: {state}")
        details = [
            row.summary,
            *(f"device: {_device(device)}" for device in row.devices),
            f"why: {row.reason}" if row.reason else "",
            f"remedy: {row.remedy}" if row.remedy else "",
        ]
        lines += [f"    {detail}" for detail in details if detail]
    return "\n".join(lines) + "\n"


def _device(device: Device) -> str:
    if device.memory_bytes is None:
        return device.name
    return f"{device.name}, {device.memory_bytes / 2**30:.1f} GiB"
