#!/usr/bin/env python3
"""Refuses what no formatter sees: fat files, vague names, machine paths, unexplained ignores."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path, PurePath

from source_files import ROOT, Finding, listed, report

MAX_LINES = 450
SOURCE_SUFFIXES = frozenset({".py", ".sh", ".nix", ".js", ".css", ".html"})
VAGUE_NAMES = frozenset({"utils", "util", "misc"})
# uv writes the lock, index addresses included; licence text and binaries are not ours to word.
UNREAD = frozenset({"uv.lock", "LICENSE"})

# Assembled from pieces, so that this file does not stand in its own list.
_MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:work|root|opt|home)(?=/)(?!/ml\b)")
_INDEX_HOST = re.compile(r"\b(?:pypi\.org|" + "python" + r"hosted\.org)\b")
_SUPPRESSION = re.compile(
    r"#\s*(?:noqa:\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*"
    r"|(?:type|pyright):\s*ignore(?:\[[\w\s,-]*\])?)(?P<reason>.*)$"
)
_MIN_REASON = 4  # characters: room for a word


def lint_names_and_sizes(path: PurePath, text: str) -> list[Finding]:
    """File names that say nothing, files that hold too much."""
    findings: list[Finding] = []
    where = Path(path)
    if path.stem in VAGUE_NAMES and path.suffix == ".py":
        findings.append(Finding(where, 1, f"{path.name} says nothing: name the noun it holds"))
    num_lines = text.count("\n")
    if path.suffix in SOURCE_SUFFIXES and num_lines > MAX_LINES:
        message = f"{num_lines} lines, the ceiling is {MAX_LINES}: split it along a noun"
        findings.append(Finding(where, num_lines, message))
    return findings


def lint_words(path: PurePath, text: str) -> list[Finding]:
    """Paths and hosts of one machine, which are nobody else's."""
    findings: list[Finding] = []
    for number, line in enumerate(text.splitlines(), 1):
        if _MACHINE_PATH.search(line):
            message = "names a path of one machine; derive it from the checkout or a setting"
            findings.append(Finding(Path(path), number, message))
        if _INDEX_HOST.search(line):
            findings.append(Finding(Path(path), number, "names a package index; uv.lock does"))
    return findings


def lint_suppressions(path: PurePath, text: str) -> list[Finding]:
    """Every `noqa` and type ignore says why, on its line: `# noqa: S603 -- a constant command`."""
    findings: list[Finding] = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _SUPPRESSION.search(line)
        if found and len(found["reason"].strip(" -#:—")) < _MIN_REASON:
            message = "suppression without a reason: write ` -- why` behind the code"
            findings.append(Finding(Path(path), number, message))
    return findings


def lint_ruff_ignores(text: str, path: Path = Path("pyproject.toml")) -> list[Finding]:
    """Each row of codes in ruff's ignore lists has a comment on its line."""
    lint = tomllib.loads(text).get("tool", {}).get("ruff", {}).get("lint", {})
    codes = set(lint.get("ignore", []))
    for extra in lint.get("per-file-ignores", {}).values():
        codes.update(extra)
    findings: list[Finding] = []
    for number, line in enumerate(text.splitlines(), 1):
        body, _, comment = line.partition("#")
        names = {name for name in re.findall(r'"([A-Z]+[0-9]*)"', body) if name in codes}
        if names and len(comment.strip()) < _MIN_REASON:
            findings.append(Finding(path, number, f"ruff ignores {sorted(names)} without a reason"))
    return findings


def main(root: Path = ROOT) -> int:
    """Lints every text file of the checkout."""
    findings: list[Finding] = []
    for path in listed(root):
        if path.name in UNREAD:
            continue
        try:
            text = (root / path).read_text()
        except UnicodeDecodeError:
            continue  # weights and pictures
        findings += lint_names_and_sizes(path, text)
        findings += lint_words(path, text)
        if path.suffix == ".py":
            findings += lint_suppressions(path, text)
    findings += lint_ruff_ignores((root / "pyproject.toml").read_text())
    return report(findings, "tree lint")


if __name__ == "__main__":
    sys.exit(main())
