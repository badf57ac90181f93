#!/usr/bin/env python3
"""`make check`: runs every gate, even after one fails, and says how to mend what failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from source_files import ROOT

BIN = Path(sys.executable).parent
UV = ROOT / ".tools" / "bin" / "uv"


@dataclass(frozen=True)
class Gate:
    """One command that must exit 0."""

    name: str
    command: tuple[str, ...]
    mend: str


def source_path(root: Path = ROOT) -> str:
    """PYTHONPATH over every member's src: import contracts hold for what is not installed too."""
    members = [root / name for name in ("core", "server", "launcher")]
    members += sorted((root / "backends").iterdir())
    return os.pathsep.join(str(member / "src") for member in members if (member / "src").is_dir())


def gates() -> list[Gate]:
    """All gates, cheapest first."""
    python = sys.executable
    tools = str(BIN)
    return [
        Gate(
            "format",
            (f"{tools}/ruff", "format", "--check", "--output-format=concise", "."),
            "make format",
        ),
        Gate(
            "lint",
            (f"{tools}/ruff", "check", "--output-format=concise", "."),
            "make format, then the rest by hand",
        ),
        Gate(
            "pickle",
            (python, "scripts/lint_pickle.py"),
            "send typed msgspec structs over a socket (backplane_core.wire)",
        ),
        Gate("tree", (python, "scripts/lint_tree.py"), "each line above says how"),
        Gate(
            "imports",
            (f"{tools}/lint-imports",),
            "the import breaks a contract of docs/architecture.md: move the code, not the contract",
        ),
        Gate(
            "types",
            (f"{tools}/basedpyright",),
            "basedpyright strict: annotate, or narrow with isinstance",
        ),
        Gate(
            "lock",
            (str(UV), "lock", "--check", "--offline"),
            "a pyproject.toml changed: make lock",
        ),
    ]


def main(names: list[str]) -> int:
    """Runs the gates called `names`, or all of them."""
    # The index another project set up, or an activated environment, must not change the answer.
    hidden = {"UV_FIND_LINKS", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONPATH"] = source_path()
    known = gates()
    if unknown := sorted(set(names) - {gate.name for gate in known}):
        print(
            f"no gate is called {', '.join(unknown)}; there are: {', '.join(g.name for g in known)}"
        )
        return 2
    failed: list[Gate] = []
    for gate in known:
        if names and gate.name not in names:
            continue
        started = time.monotonic()
        result = subprocess.run(  # noqa: S603 -- constant commands
            gate.command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
        )
        verdict = "FAILED" if result.returncode else "ok"
        print(f"{gate.name:<8} {verdict:<7} {time.monotonic() - started:5.1f} s", flush=True)
        if result.returncode:
            failed.append(gate)
            print(result.stdout + result.stderr, flush=True)
    for gate in failed:
        print(f"gate {gate.name} failed. To mend: {gate.mend}")
    if not failed:
        print("all gates passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
