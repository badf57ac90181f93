"""A copy of the checkout, a filled-in stub nixpkgs, and nix with a store of its own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = "BACKPLANE_REQUIRE_NIX"  # set by .ci/run, where a skip would hide a broken flake

# No network, no daemon, no user to build as: all that Debian's nix-bin needs.
NIX_CONFIG = """\
experimental-features = nix-command flakes
sandbox = false
build-users-group =
substituters =
flake-registry =
"""


@dataclass(frozen=True)
class Nix:
    """Runs nix in a private store on one copy of the source."""

    source: Path
    stub: Path
    environment: dict[str, str]

    def __call__(self, *arguments, override=True, check=True, timeout=120):
        command = ["nix", *arguments]
        if override:
            at = 2 if arguments[0] == "flake" else 1
            command[at + 1 : at + 1] = [
                *("--no-write-lock-file", "--override-input", "nixpkgs", f"path:{self.stub}")
            ]
        result = subprocess.run(
            command,
            cwd=self.source,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check:
            assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        return result

    def json(self, *arguments, **options):
        return json.loads(self(*arguments, **options).stdout)

    def flake(self, output=""):
        return f"path:{self.source}" + (f"#{output}" if output else "")


def copy_checkout(target):
    """What git tracks or would track: the files a flake in a git repository sees."""
    listed = subprocess.run(
        [
            "git",
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def make_host_python(folder):
    """An interpreter that sees third-party packages, but none of the workspace's members.

    A path named in a .pth file is searched for modules, yet not for .pth files of its own, which
    is where the editable members are.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    third_party = Path(site.stdout.strip()) / "third_party.pth"
    third_party.write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="session")
def nix(tmp_path_factory):
    if shutil.which("nix") is None:
        reason = "nix is not installed: sudo apt-get install -y nix-bin"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("nix")
    copy_checkout(folder / "source")
    shutil.copytree(ROOT / "tests" / "nix" / "stub", folder / "stub")
    python = make_host_python(folder / "host")
    (folder / "stub" / "host.nix").write_text(f'{{ python = "{python}"; }}\n')
    (folder / "home").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "NIX_CONFIG": NIX_CONFIG,
        "NIX_STORE_DIR": str(folder / "store"),
        "NIX_STATE_DIR": str(folder / "state"),
        "NIX_LOG_DIR": str(folder / "log"),
    }
    yield Nix(folder / "source", folder / "stub", environment)
    # nix leaves its store read-only, which would defeat pytest's own cleaning.
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)
