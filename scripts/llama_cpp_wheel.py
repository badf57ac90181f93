#!/usr/bin/env python3
"""Prints the path of a llama-cpp-python wheel compiled for this machine's processor.

The index has sources only, and the compilation takes minutes: it is done once for each version,
set of CMake flags, processor and platform, and kept. Standard library only: runs before .venv.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
import tomllib
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "llama-cpp-python"
# Applied to the source distribution, in order of their names; the first lines of each say why.
PATCHES = tuple(sorted((ROOT / "scripts" / "patches").glob("llama-cpp-*.patch")))

CMAKE_ARGS = (
    "-DGGML_NATIVE=ON",  # the processor at hand: without AVX2 and FMA, decoding is ~10 times slower
    "-DGGML_LLAMAFILE=ON",  # tiled products for batches; off where ggml is part of another build
    "-DLLAMA_BUILD_TESTS=OFF",  # the bindings load only the libraries
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_OPENSSL=OFF",  # downloading is the launcher's business
)
# Debian's build-essential has neither cmake nor ninja; pip puts these beside the build.
BUILD_REQUIREMENTS = ("scikit-build-core==1.1.2", "cmake==4.4.4", "ninja==1.13.2")

BYTES_PER_JOB = 1 << 30  # what the fattest translation units need while they are compiled
SECONDS_BETWEEN_LINES = 15.0  # when the output is a file or a CI log
SECONDS_BETWEEN_FRAMES = 0.5  # when it is a terminal
NUM_TAIL_LINES = 30

_NINJA_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")


class WheelError(Exception):
    """The wheel could not be made; the message says why and where the log is."""


@dataclass(frozen=True)
class Source:
    """One locked source distribution: pip checks the hash before anything of it runs."""

    version: str
    sha256: str


@dataclass
class Progress:
    """What the build is doing, read from its output line by line."""

    stage: str = "starting"
    done: int = 0
    total: int = 0
    compile_started: float = 0.0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=NUM_TAIL_LINES))

    def feed(self, line: str, now: float) -> None:
        """Takes one line of the build's output, seen at `now` (monotonic seconds)."""
        self.tail.append(line.rstrip())
        step = _NINJA_STEP.match(line)
        if step:
            self.done, self.total = int(step[1]), int(step[2])
            self.compile_started = self.compile_started or now
            self.stage = "compiling"
        elif "Downloading" in line:
            self.stage = "downloading"
        elif "Configuring CMake" in line:
            self.stage = "configuring"
        elif "Installing project" in line or "Making wheel" in line:
            self.stage = "packing"

    def render(self, started: float, now: float) -> str:
        """One line: stage, steps, time used, time left as far as the pace so far tells."""
        text = f"llama.cpp: {self.stage}"
        if self.stage == "compiling":
            text += f" [{self.done}/{self.total}]"
        text += f", {_clock(now - started)} so far"
        spent = now - self.compile_started
        if self.stage == "compiling" and self.done and spent > 1:
            text += f", about {_clock(spent / self.done * (self.total - self.done))} left"
        return text


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def locked_source(lock: Path) -> Source:
    """The version and hash that uv.lock fixes."""
    for package in tomllib.loads(lock.read_text())["package"]:
        if package["name"] == PACKAGE:
            return Source(package["version"], package["sdist"]["hash"].removeprefix("sha256:"))
    raise WheelError(f"{lock} has no {PACKAGE}: run `make lock`")


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's instruction-set flags, sorted; empty where the system does not list them."""
    if not cpuinfo.exists():
        return platform.processor()
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return " ".join(sorted(value.split()))
    return ""


def cache_key(
    source: Source, cmake_args: tuple[str, ...], features: str, patches: tuple[Path, ...] = ()
) -> str:
    """Names a wheel: two builds that could differ in their machine code never share a key."""
    tag = f"{sysconfig.get_platform()}-{'-'.join(platform.libc_ver())}"
    sums = [hashlib.sha256(patch.read_bytes()).hexdigest() for patch in patches]
    facts = "\n".join((source.version, source.sha256, *cmake_args, features, tag, *sums))
    return f"llama-cpp-{source.version}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def cache_root(environment: Mapping[str, str]) -> Path:
    """Where wheels are kept: $BACKPLANE_CACHE or ~/.cache/backplane."""
    configured = environment.get("BACKPLANE_CACHE")
    root = Path(configured).expanduser() if configured else Path.home() / ".cache" / "backplane"
    return root / "wheels"


def num_jobs() -> int:
    """One compiler per core, fewer where memory would run out first."""
    cores = os.cpu_count() or 1
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return cores
    available = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    return max(1, min(cores, int(available[1]) * 1024 // BYTES_PER_JOB)) if available else cores


def cached(directory: Path) -> Path | None:
    """The finished wheel in `directory`, if there is one."""
    return next(iter(sorted(directory.glob("*.whl"))), None)


@contextmanager
def locked(path: Path, out: TextIO) -> Generator[None]:
    """Holds the lock file `path`; says so, and again at intervals, while another build holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        started = time.monotonic()
        spoken = 0.0
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - started
                if not spoken or waited - spoken > SECONDS_BETWEEN_LINES:
                    spoken = waited or 1.0
                    print(
                        f"llama.cpp: another build is running, waited {_clock(waited)}",
                        file=out,
                        flush=True,
                    )
                time.sleep(0.2)
        yield


def watch(command: list[str], environment: Mapping[str, str], log: Path, out: TextIO) -> None:
    """Runs `command`, all its output into `log`, and shows on `out` that it is alive.

    Raises:
        WheelError: it failed; the message holds the end of the log.
    """
    progress = Progress()
    started = time.monotonic()
    child = subprocess.Popen(  # noqa: S603 -- the command is built here, from the lock
        command,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that an interrupt can end the compilers too
    )

    def drain() -> None:
        assert child.stdout is not None  # noqa: S101 -- stdout is a pipe, for the type checker
        with log.open("w") as sink:
            for line in child.stdout:
                sink.write(line)
                progress.feed(line, time.monotonic())

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        _show_until_done(reader, progress, started, out)
        code = child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGTERM)
        raise
    if code:
        tail = "\n".join(progress.tail)
        raise WheelError(f"{tail}\n\nllama.cpp did not compile (exit {code}); whole log: {log}")


def _show_until_done(
    reader: threading.Thread, progress: Progress, started: float, out: TextIO
) -> None:
    interactive = out.isatty()
    interval = SECONDS_BETWEEN_FRAMES if interactive else SECONDS_BETWEEN_LINES
    width = shutil.get_terminal_size().columns - 1
    while reader.is_alive():
        line = progress.render(started, time.monotonic())
        out.write(f"\r{line[:width]:<{width}}" if interactive else f"{line}\n")
        out.flush()
        reader.join(interval)
    if interactive:
        out.write("\n")


def download_command(source: Source, requirements: Path, target: Path) -> list[str]:
    """Fetches exactly the locked source into `target`; pip compares the hash."""
    requirements.write_text(f"{PACKAGE}=={source.version} --hash=sha256:{source.sha256}\n")
    return [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"),
        *("--no-binary", PACKAGE, "--disable-pip-version-check", "--no-cache-dir"),
        *("--dest", str(target), "--requirement", str(requirements)),
    ]


def pip_command(folder: Path, wheels: Path) -> list[str]:
    """Builds the unpacked source in `folder` into `wheels`."""
    return [
        *(sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps"),
        # pip's own wheel cache knows neither flags nor processors.
        *("--disable-pip-version-check", "--no-cache-dir", "--wheel-dir", str(wheels), str(folder)),
    ]


def unpack(archives: Path, target: Path) -> Path:
    """The folder of the one source distribution in `archives`, unpacked below `target`.

    Raises:
        WheelError: there is none.
    """
    archive = next(iter(sorted(archives.glob("*.tar.gz"))), None)
    if archive is None:
        raise WheelError(f"pip downloaded no source distribution of {PACKAGE}")
    with tarfile.open(archive) as members:
        # Python 3.11 knows filters from its fourth patch release on; the hash was compared before.
        members.extraction_filter = getattr(tarfile, "data_filter", None)
        members.extractall(target)  # noqa: S202 -- see above
    return target / archive.name.removesuffix(".tar.gz")


def apply_patches(folder: Path, patches: tuple[Path, ...]) -> None:
    """Changes the source by every patch; lines that moved are found, changed ones are not guessed.

    Raises:
        WheelError: one does not fit this version.
    """
    if shutil.which("patch") is None:
        raise WheelError("no patch program: sudo apt-get install -y build-essential")
    for patch in patches:
        command = ["patch", "--batch", "--fuzz=0", "--strip=1", f"--input={patch}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 -- built here
        if done.returncode:
            raise WheelError(
                f"{patch.name} does not fit {PACKAGE} of this version, so it must be made anew, "
                f"or removed if upstream has what it does:\n{done.stdout}{done.stderr}"
            )


def build(source: Source, directory: Path, log: Path, out: TextIO) -> Path:
    """Compiles into a private directory beside `directory`, then renames it: never half a wheel."""
    if shutil.which("c++") is None:
        raise WheelError("no C++ compiler: sudo apt-get install -y build-essential")
    scratch = directory.with_name(f"{directory.name}.{os.getpid()}.tmp")
    scratch.mkdir(parents=True)
    try:
        wheels = scratch / "wheels"
        constraints = scratch / "constraints.txt"
        constraints.write_text("\n".join(BUILD_REQUIREMENTS) + "\n")
        environment = os.environ | {
            "CMAKE_ARGS": " ".join(CMAKE_ARGS),
            "CMAKE_BUILD_PARALLEL_LEVEL": str(num_jobs()),
            "PIP_CONSTRAINT": str(constraints),  # reaches pip's isolated build environment
            "TMPDIR": str(scratch),  # the cache's disk, not a small /tmp in memory
        }
        archives = scratch / "archives"
        fetch = download_command(source, scratch / "requirements.txt", archives)
        watch(fetch, environment, log, out)
        folder = unpack(archives, scratch / "source")
        apply_patches(folder, PATCHES)
        watch(pip_command(folder, wheels), environment, log, out)
        if cached(wheels) is None:
            raise WheelError(f"pip made no wheel; whole log: {log}")
        wheels.rename(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    wheel = cached(directory)
    assert wheel is not None  # noqa: S101 -- seen above, before the rename
    return wheel


def main() -> int:
    """Prints the wheel's path on standard output; everything else goes to standard error."""
    try:
        source = locked_source(ROOT / "uv.lock")
        root = cache_root(os.environ)
        directory = root / cache_key(source, CMAKE_ARGS, cpu_features(), PATCHES)
        with locked(root / f"{directory.name}.lock", sys.stderr):
            wheel = cached(directory)
            if wheel is None:
                print(
                    f"llama.cpp: compiling {PACKAGE} {source.version} for this processor with "
                    f"{num_jobs()} jobs (about six minutes on two cores, once)",
                    file=sys.stderr,
                )
                log = root / f"{directory.name}.log"
                wheel = build(source, directory, log, sys.stderr)
    except WheelError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nllama.cpp: interrupted, nothing was kept", file=sys.stderr)
        return 130
    print(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
