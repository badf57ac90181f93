"""Every command on the page of measurements exists and knows the flags it is given there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
FLAG = re.compile(r"--[a-z][a-z-]*")


def commands():
    """Each indented line that calls something of ours: `.venv/bin/python …` as words."""
    found = []
    for line in PAGE.splitlines():
        if line.startswith("    ") and ".venv/bin/" in line:
            words = [word for word in shlex.split(line.strip()) if word != "&"]
            found.append(words[next(i for i, word in enumerate(words) if ".venv" in word) :])
    return found


def called_and_given(words):
    """What is run, without its arguments, and these; `backplane` has commands of its own."""
    program, *rest = words
    if program == ".venv/bin/python":
        split = 2 if rest[0] == "-m" else 1
        return [sys.executable, *rest[:split]], rest[split:]
    split = 1 if rest and not rest[0].startswith("-") else 0
    return [str(Path(sys.executable).with_name(Path(program).name)), *rest[:split]], rest[split:]


def test_the_page_has_commands():
    assert len(commands()) >= 8


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_it_exists_and_takes_these_flags(words):
    called, arguments = called_and_given(words)
    done = subprocess.run(
        [*called, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    flags = {word.partition("=")[0] for word in own if word.startswith("--")}
    assert flags <= set(FLAG.findall(done.stdout))


def test_every_benchmark_is_on_the_page():
    scripts = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()
    }
    scripts |= {path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")}
    assert {name for name in scripts if not re.search(rf"benchmarks[/.]{name}\b", PAGE)} == set()
