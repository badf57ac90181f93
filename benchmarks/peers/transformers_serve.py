"""`transformers serve`, of the versions that the torch backend runs on here, in an environment."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.peers.places import kept

VERSION: Final = "5.23.0"
TORCH: Final = "2.13.0"


def folder() -> Path:
    """The environment, once it is made."""
    return kept("peers", f"transformers-serve-{VERSION}-torch-{TORCH}")


def program() -> Path:
    """The command `transformers`; ends this program with what to do where there is none."""
    if not _made().exists():
        raise SystemExit(
            "there is no transformers serve yet: run python -m benchmarks.peers transformers-serve"
        )
    return folder() / "bin" / "transformers"


def environment() -> dict[str, str]:
    """What it is started with: no Hub, and a folder of downloads in which there is no model.

    It names the models there as those it serves, and refuses requests that name them.
    """
    return {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(_downloads())}


def build() -> Path:
    """Make the environment; what is there already is left. The command."""
    place = folder()
    if not _made().exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        wanted = (f"transformers[serving]=={VERSION}", f"torch=={TORCH}")
        subprocess.run([*pip, "install", *wanted], check=True, stdout=sys.stderr)
        _downloads().mkdir()
        _made().touch()
    return program()


def _made() -> Path:
    """There once all is: an environment cannot be made elsewhere and moved, its scripts name it."""
    return folder() / "made"


def _downloads() -> Path:
    return folder() / "hub"
