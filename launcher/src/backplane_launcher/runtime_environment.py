"""`--env`: what this runs on, in the log, for whoever must reproduce a fault."""

import logging
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from backplane_core.version import __version__

from backplane_launcher.backends_listing import backend_table
from backplane_launcher.catalogue import Catalogue
from backplane_launcher.launch_documents import child_environment

_log = logging.getLogger(__name__)

_DISTRIBUTIONS: Final = (
    "backplane-core",
    "backplane-server",
    "backplane-launcher",
    "huggingface-hub",
    "litestar",
    "llguidance",
    "msgspec",
    "tokenizers",
)
# Programs of the drivers, as in TGI: each prints its devices and versions.
_TOOLS: Final = (
    ("nvidia-smi",),
    ("rocm-smi",),
    ("xpu-smi", "discovery"),
    ("hl-smi",),
    ("neuron-ls",),
)
_TOOL_LIMIT_S: Final = 15.0


def log_environment(catalogue: Catalogue, environ: Mapping[str, str]) -> None:
    """Ask everything there is to ask, and log it. Takes seconds: backends load their drivers."""
    lines = [
        "Runtime environment:",
        f"Backplane: {__version__}",
        f"Python: {platform.python_version()} at {sys.executable}",
        f"System: {platform.platform()}",
        f"Docker label: {environ.get('DOCKER_LABEL') or 'N/A'}",
        *(f"{name}: {_version(name)}" for name in _DISTRIBUTIONS),
        "Backends:",
        backend_table(catalogue).rstrip("\n"),
    ]
    for command in _TOOLS:
        if shutil.which(command[0]) is not None:
            lines += [f"{command[0]}:", _said_by(command, child_environment(environ))]
    for line in "\n".join(lines).splitlines():
        _log.info("%s", line)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _said_by(command: tuple[str, ...], environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - a driver's own program, on the path
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TOOL_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=dict(environ),
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_TOOL_LIMIT_S:g} s"
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    return (done.stdout or done.stderr).strip() or f"nothing, with status {done.returncode}"
