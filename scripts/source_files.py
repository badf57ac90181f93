"""Which files of the checkout the lints look at: what git tracks or would track."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Finding:
    """One violation, printed as `path:line: message` so that editors can jump to it."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def listed(root: Path = ROOT) -> list[Path]:
    """Paths relative to `root` of every file that is tracked or neither tracked nor ignored."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout  # noqa: S603 -- a constant command
    paths = (Path(name) for name in output.split("\0") if name)
    return sorted(path for path in paths if (root / path).is_file())


def report(findings: list[Finding], what: str) -> int:
    """Prints the findings and returns the exit status."""
    for finding in findings:
        print(finding)
    print(f"{what}: {f'{len(findings)} to mend' if findings else 'clean'}")
    return 1 if findings else 0
