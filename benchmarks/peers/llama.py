"""llama-server, llama-batched-bench and llama-bench, from the sources that our wheel is made of.

The tree is the one vendored in the llama-cpp-python of uv.lock, so that both sides compute with
the same llama.cpp; CMake and Ninja come from PyPI. "Patched" is one with our `scripts/patches`: no
peer, but what our own engine could do.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.places import ROOT, kept, wheel_builder

PROGRAMS: Final = ("llama-server", "llama-batched-bench", "llama-bench")
PATCHED_PROGRAMS: Final = ("llama-batched-bench",)
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


def folder(*, patched: bool = False) -> Path:
    """Where this version's programs for this processor lie, once they are built."""
    builder = wheel_builder()
    patches = builder.PATCHES if patched else ()
    return kept("peers", builder.cache_key(_source(), CMAKE_ARGS, builder.cpu_features(), patches))


def program(name: str, *, patched: bool = False) -> Path:
    """One of `PROGRAMS`, or of the patched ones; ends this program where it is not built."""
    path = folder(patched=patched) / "bin" / name
    if not path.exists():
        peer = "llama-patched" if patched else "llama"
        raise SystemExit(f"there is no {name} yet: run python -m benchmarks.peers {peer}")
    return path


def source_tree() -> Path:
    """The unpacked sdist, whose `examples/server` is a peer of its own."""
    place = folder()
    found = list(place.glob("llama_cpp_python-*/pyproject.toml"))
    if not found:
        raise SystemExit("there are no sources yet: run python -m benchmarks.peers llama")
    return found[0].parent


def build(*, patched: bool = False) -> Path:
    """Fetch, configure, compile; what is there already is left. The folder of the programs."""
    builder, place = wheel_builder(), folder(patched=patched)
    programs = PATCHED_PROGRAMS if patched else PROGRAMS
    with builder.locked(place.with_name(f"{place.name}.lock"), sys.stderr):
        if all((place / "bin" / name).exists() for name in programs):
            return place / "bin"
        place.mkdir(exist_ok=True)
        source = _fetch(place)
        if patched:
            builder.apply_patches(source, builder.PATCHES)
        tools = _tools(place)
        tree, out = source / "vendor" / "llama.cpp", place / "build"
        environ = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        configure = ["cmake", "-G", "Ninja", "-S", str(tree), "-B", str(out), *CMAKE_ARGS]
        builder.watch(configure, environ, place / "configure.log", sys.stderr)
        jobs = str(builder.num_jobs())
        compile_ = ["ninja", "-C", str(out), "-j", jobs, *programs]
        builder.watch(compile_, environ, place / "build.log", sys.stderr)
        (place / "bin").mkdir(exist_ok=True)
        for name in programs:
            shutil.copy2(out / "bin" / name, place / "bin" / name)
    return place / "bin"


def _fetch(place: Path) -> Path:
    """Download and unpack the locked sdist, whose hash pip checks. Its folder."""
    builder, archives = wheel_builder(), place / "archives"
    for left in place.glob("llama_cpp_python-*/"):  # of half a build; sources are patched only once
        shutil.rmtree(left)
    command = builder.download_command(_source(), place / "requirements.txt", archives)
    subprocess.run(command, check=True, stdout=sys.stderr)
    return builder.unpack(archives, place)


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
