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


@pytest.mark.parametrize(
    "target", ["install", "install-torch", "serve", "test", "check", "lock", "demo-model"]
)
def test_help_lists_the_target(target):
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^make {target}\b +\w", shown, re.MULTILINE)


def test_install_torch_passes_its_arguments_on():
    command = make("install-torch", "ARGS=--extra-index-url https://host/cpu")
    assert "install_torch.py --extra-index-url https://host/cpu\n" in command


@pytest.mark.parametrize("target", ["test", "check"])
def test_arguments_of_other_targets_do_not_reach_pip(target):
    commands = make("--always-make", target, "ARGS=tests/core").splitlines()
    assert [line for line in commands if "install_torch.py" in line] == [
        ".venv/bin/python scripts/install_torch.py"
    ]


def test_serving_needs_no_torch():
    assert "install_torch" not in make("--always-make", "serve")


def prerequisites(target):
    database = subprocess.run(
        ["make", "--print-data-base", "--question", "install"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return set(re.search(rf"^{re.escape(target)}: (.*)$", database, re.MULTILINE)[1].split())


def test_an_installation_follows_every_manifest():
    """A member whose pyproject.toml or C changes is installed again by the next `make`."""
    members = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/pyproject.toml")}
    members |= {str(path.relative_to(ROOT)) for path in ROOT.glob("backends/*/pyproject.toml")}
    members |= {str(path.relative_to(ROOT)) for path in ROOT.glob("backends/*/src/**/*.[ch]")}
    assert {"uv.lock", "pyproject.toml", *members} <= prerequisites(".venv/.installed")


def test_pytorch_follows_its_pins_and_the_environment():
    needs = prerequisites(".venv/.torch-installed")
    assert {"backends/torch/requirements.txt", ".venv/.installed"} <= needs
