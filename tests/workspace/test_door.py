"""The Makefile and the installer: what they say on a bare machine, what they pass on."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bare_machine(folder, *programs):
    """A PATH with nothing on it but a shell's needs and `programs`."""
    for name in ("bash", "dirname", "env", "mkdir", "flock", *programs):
        (folder / name).symlink_to(shutil.which(name))
    return {"PATH": str(folder), "HOME": str(folder)}


def install(environment):
    return subprocess.run(
        [shutil.which("bash"), ROOT / "scripts" / "install.sh"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_bare_machine_gets_one_apt_line(tmp_path):
    result = install(bare_machine(tmp_path))
    assert result.returncode == 1
    lines = [line.strip() for line in result.stderr.splitlines() if "apt-get" in line]
    assert lines == ["sudo apt-get install -y python3 python3-venv git build-essential"]


def test_only_what_is_missing_is_named(tmp_path):
    environment = bare_machine(tmp_path, "git", "cc", "c++")
    result = install(environment)
    assert "apt-get install -y python3 python3-venv\n" in result.stderr


def test_an_old_python_is_not_taken(tmp_path):
    environment = bare_machine(tmp_path, "git", "cc", "c++")
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = install(environment)
    assert result.returncode == 1
    assert "3.11 or newer" in result.stderr


def make(*arguments):
    return subprocess.run(
        ["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_serve_passes_its_arguments_on():
    command = make("serve", "PORT=3210", "ARGS=--model-id some/model --backend llamacpp")
    assert "backplane --port 3210 --model-id some/model --backend llamacpp" in command


def test_test_passes_its_arguments_on():
    assert "pytest --durations=15 tests/core -x" in make("test", "ARGS=tests/core -x")


@pytest.mark.parametrize("target", ["install", "serve", "test", "check", "lock", "demo-model"])
def test_help_lists_the_target(target):
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^make {target}\b +\w", shown, re.MULTILINE)


def test_an_installation_follows_every_manifest():
    """A member whose pyproject.toml or C changes is installed again by the next `make`."""
    database = subprocess.run(
        ["make", "--print-data-base", "--question", "install"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    rule = re.search(r"^\.venv/\.installed: (.*)$", database, re.MULTILINE)
    members = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/pyproject.toml")}
    members |= {str(path.relative_to(ROOT)) for path in ROOT.glob("backends/*/pyproject.toml")}
    members |= {str(path.relative_to(ROOT)) for path in ROOT.glob("backends/*/src/**/*.[ch]")}
    assert {"uv.lock", "pyproject.toml", *members} <= set(rule[1].split())
