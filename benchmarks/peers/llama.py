"""llama-server, llama-batched-bench and llama-bench, from the sources that our wheel is made of.

The tree is the one vendored in the llama-cpp-python of uv.lock, so that both sides compute with
the same llama.cpp; CMake and Ninja come from PyPI.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.places import ROOT, kept, wheel_builder

PROGRAMS: Final = ("llama-server", "llama-batched-bench", "llama-bench")
CMAKE_ARGS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",  # the processor at hand, as for our wheel
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)


def _source() -> Any:
    return wheel_builder().locked_source(ROOT / "uv.lock")


def folder() -> Path:
    """Where this version's programs for this processor lie, once they are built."""
    builder = wheel_builder()
    return kept("peers", builder.cache_key(_source(), CMAKE_ARGS, builder.cpu_features()))


def program(name: str) -> Path:
    """One of `PROGRAMS`; ends this program with what to do where it is not built."""
    path = folder() / "bin" / name
    if not path.exists():
        raise SystemExit(f"there is no {name} yet: run python -m benchmarks.peers llama")
    return path


def source_tree() -> Path:
    """The unpacked sdist, whose `examples/server` is a peer of its own."""
    place = folder()
    found = list(place.glob("llama_cpp_python-*/pyproject.toml"))
    if not found:
        raise SystemExit("there are no sources yet: run python -m benchmarks.peers llama")
    return found[0].parent


def build() -> Path:
    """Fetch, configure, compile; what is there already is left. The folder of the programs."""
    builder, place = wheel_builder(), folder()
    with builder.locked(place.with_name(f"{place.name}.lock"), sys.stderr):
        if all((place / "bin" / name).exists() for name in PROGRAMS):
            return place / "bin"
        place.mkdir(exist_ok=True)
        _fetch(place)
        tools = _tools(place)
        tree, out = source_tree() / "vendor" / "llama.cpp", place / "build"
        environ = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        configure = ["cmake", "-G", "Ninja", "-S", str(tree), "-B", str(out), *CMAKE_ARGS]
        builder.watch(configure, environ, place / "configure.log", sys.stderr)
        jobs = str(builder.num_jobs())
        compile_ = ["ninja", "-C", str(out), "-j", jobs, *PROGRAMS]
        builder.watch(compile_, environ, place / "build.log", sys.stderr)
        (place / "bin").mkdir(exist_ok=True)
        for name in PROGRAMS:
            shutil.copy2(out / "bin" / name, place / "bin" / name)
    return place / "bin"


def _fetch(place: Path) -> None:
    """Download and unpack the locked sdist; pip checks its hash."""
    builder, archives = wheel_builder(), place / "archives"
    command = builder.download_command(_source(), place / "requirements.txt", archives)
    subprocess.run(command, check=True, stdout=sys.stderr)
    builder.unpack(archives, place)


def _tools(place: Path) -> Path:
    """A folder with CMake and Ninja, of the versions that make our wheel."""
    tools = place / "tools"
    wanted = [
        one for one in wheel_builder().BUILD_REQUIREMENTS if one.startswith(("cmake", "ninja"))
    ]
    subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
    subprocess.run(
        [str(tools / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *wanted],
        check=True,
    )
    return tools / "bin"
