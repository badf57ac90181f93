"""`make demo-model`: makes an environment for the recipe if need be, and runs the recipe in it.

Needs only the standard library; everything it makes lies in demo-model/build.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD_FOLDER = HERE / "build"
ENVIRONMENT = BUILD_FOLDER / "venv"
REQUIREMENTS = HERE / "requirements.txt"
INSTALLED_MARK = ENVIRONMENT / "installed-requirements.txt"


def ensure_environment() -> Path:
    """The interpreter of an environment that holds exactly the pinned requirements."""
    python = ENVIRONMENT / "bin" / "python"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if INSTALLED_MARK.is_file() and INSTALLED_MARK.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Making the environment for training in {ENVIRONMENT} ...", flush=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    install = [str(python), "-m", "pip", "install", "--requirement", str(REQUIREMENTS)]
    subprocess.run(install, check=True)
    INSTALLED_MARK.write_text(wanted, encoding="utf-8")
    return python


def main() -> int:
    """Runs the recipe; its arguments are passed on (try --help)."""
    python = ensure_environment()
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [str(python), "-m", "recipe", *sys.argv[1:]]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
