"""The single-file server among llama-cpp-python's examples, over the bindings that we run on.

`python -m benchmarks.peers.example_server MODEL PORT` runs it; it reads its settings from a file.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.peers import llama
from benchmarks.peers.places import kept

# What the script itself names, but for the bindings, and what these need.
_NEEDS: Final = (
    *("fastapi", "jinja2", "numpy", "openai", "pydantic", "safetensors", "uvicorn", "websockets"),
    *("diskcache", "typing-extensions"),
)
_CONTEXT, _SEQUENCES = 32_768, 32


def _folder() -> Path:
    key = hashlib.sha256(" ".join(_NEEDS).encode()).hexdigest()[:8]
    return kept("peers", f"example-server-{key}-{llama.folder().name}")


def build() -> Path:
    """Make its environment; what is there already is left. Its Python."""
    place = _folder()
    python = place / "bin" / "python"
    if not (place / "bindings").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *_NEEDS], check=True, stdout=sys.stderr)
        (place / "bindings").mkdir()
    return python


def _bindings() -> Path:
    """A folder with nothing but our own interpreter's `llama_cpp`, library and all."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("llama-cpp-python is not installed: run make install")
    link = _folder() / "bindings" / "llama_cpp"
    link.unlink(missing_ok=True)
    link.symlink_to(spec.submodule_search_locations[0])
    return link.parent


def settings(model: str, port: int) -> dict[str, object]:
    """As many sequences and cells as the others have, llama.cpp's own batch sizes, all cores."""
    cores = len(os.sched_getaffinity(0))
    return {
        "server": {"host": "127.0.0.1", "port": port},
        "model": {
            "path": model,
            "alias": "model",
            "n_ctx": _CONTEXT,
            "n_seq_max": _SEQUENCES,
            "n_batch": 2048,
            "n_ubatch": 512,
            "threads": cores,
            "threads_batch": cores,
            "kv_unified": True,
            "store_logits": False,
        },
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("port", type=int)
    asked = parser.parse_args()
    python = _folder() / "bin" / "python"
    if not python.exists():
        raise SystemExit("it is not there yet: run python -m benchmarks.peers example-server")
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(settings(asked.model, asked.port), file)
    script = llama.source_tree() / "examples" / "server" / "server.py"
    environ = os.environ | {"PYTHONPATH": str(_bindings())}
    os.execve(python, [str(python), str(script), "-C", file.name], environ)  # noqa: S606 -- in our place


if __name__ == "__main__":
    main()
