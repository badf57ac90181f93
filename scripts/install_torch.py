#!/usr/bin/env python3
"""`make install-torch`: has pip bring PyTorch and transformers into .venv, and says what first.

Runs on .venv's Python. Arguments go to pip (`--extra-index-url …` for another build of PyTorch).
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source_files import ROOT

REQUIREMENTS = ROOT / "backends" / "torch" / "requirements.txt"
SECONDS_TO_ASK = 5.0
NAMED_FIRST = ("torch", "transformers")

OTHER_BUILD = (
    "For another build of PyTorch (CPU alone, NVIDIA, AMD, Intel) stop this with Ctrl-C and run\n"
    '    make install-torch ARGS="--extra-index-url URL"\n'
    "with the URL that pytorch.org/get-started names for it. If one is installed already, first\n"
    "    .venv/bin/python -m pip uninstall torch"
)
WITHOUT = (
    "The torch backend's libraries are not installed; pip says why above. All else works without "
    "them (make serve). Behind a proxy set HTTPS_PROXY; a mirror is named by "
    'make install-torch ARGS="--index-url URL".'
)


class InstallError(Exception):
    """pip failed; what it says is on the terminal."""


@dataclass(frozen=True)
class Download:
    """One file that pip is going to bring. `num_bytes` is None where its server does not say."""

    name: str
    version: str
    url: str
    num_bytes: int | None = None


def held_versions(lock: str, installed: dict[str, str]) -> list[str]:
    """Constraints for pip: what uv.lock brought stays in the version it has."""
    names = [
        package["name"]
        for package in tomllib.loads(lock)["package"]
        if "registry" in package["source"]
    ]
    return sorted({f"{name}=={installed[name]}" for name in names if name in installed})


def installed_versions() -> dict[str, str]:
    """The distributions of this environment, by normalized name."""
    found = importlib.metadata.distributions()
    return {normalize(one.metadata["Name"]): one.version for one in found}


def normalize(name: str) -> str:
    """A distribution's name as the lock writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_report(report: dict[str, Any]) -> list[Download]:
    """The files of pip's installation report, PyTorch and transformers first."""
    found = [
        Download(
            normalize(entry["metadata"]["name"]),
            entry["metadata"]["version"],
            entry["download_info"]["url"],
        )
        for entry in report["install"]
    ]
    order = {name: place for place, name in enumerate(NAMED_FIRST)}
    return sorted(found, key=lambda file: (order.get(file.name, len(order)), file.name))


def with_sizes(files: list[Download]) -> list[Download]:
    """The same with their sizes, asked of disk and servers side by side."""
    with ThreadPoolExecutor(8) as pool:
        sizes = pool.map(size_of, (file.url for file in files))
        return [
            Download(file.name, file.version, file.url, size)
            for file, size in zip(files, sizes, strict=True)
        ]


def size_of(url: str) -> int | None:
    """Bytes of the file at `url`; None where nobody says."""
    parts = urllib.parse.urlsplit(url)
    try:
        if parts.scheme == "file":
            return Path(urllib.request.url2pathname(parts.path)).stat().st_size
        if parts.scheme not in {"http", "https"}:
            return None
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 -- the scheme was looked at
        with urllib.request.urlopen(request, timeout=SECONDS_TO_ASK) as answer:  # noqa: S310 -- likewise
            length = answer.headers["Content-Length"]
    except (OSError, ValueError):
        return None
    return int(length) if length else None


def kind_of_build(files: list[Download]) -> str:
    """What hardware the PyTorch among `files` is for, by its label or the parts it brings."""
    version = next(file.version for file in files if file.name == "torch")
    label = version.partition("+")[2]
    if label == "cpu":
        return "the build for the CPU alone"
    if label.startswith("rocm"):
        return f"the build for AMD GPUs ({label})"
    if label == "xpu":
        return "the build for Intel GPUs"
    if label.startswith("cu"):
        return f"the build for NVIDIA GPUs ({label}), which runs on the CPU too"
    if nvidia_parts(files):
        return "the build for NVIDIA GPUs, which runs on the CPU too"
    return "the build published for this system"


def nvidia_parts(files: list[Download]) -> list[Download]:
    """CUDA's libraries, which are most of the bytes of such a build."""
    return [file for file in files if file.name.startswith(("nvidia-", "cuda-", "triton"))]


def describe(files: list[Download]) -> str:
    """What is going to be downloaded, for a person who may want to stop it."""
    lines = [f"pip is going to install {len(files)} packages, {total(files)}:"]
    named = [file for file in files if file.name in NAMED_FIRST]
    for file in named:
        build = f", {kind_of_build(files)}" if file.name == "torch" else ""
        lines.append(f"    {file.name} {file.version}{build}: {total([file])}")
    parts = nvidia_parts(files)
    if parts:
        lines.append(f"    {len(parts)} parts of CUDA, {total(parts)}: {listing(parts)}")
    rest = [file for file in files if file not in named and file not in parts]
    if rest:
        lines.append(f"    what they need, {total(rest)}: {listing(rest)}")
    if any(file.name == "torch" for file in files):
        lines.append(OTHER_BUILD)
    return "\n".join(lines)


def listing(files: list[Download]) -> str:
    """Names and versions in a row."""
    return ", ".join(f"{file.name} {file.version}" for file in files)


def total(files: list[Download]) -> str:
    """The sum of sizes, in words that fit what is known of them."""
    known = [file.num_bytes for file in files if file.num_bytes is not None]
    if not known:
        return "of unknown size"
    size = sum(known)
    text = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"  # noqa: PLR2004 -- a GB
    return text if len(known) == len(files) else f"at least {text}"


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Holds the lock that `make install` takes too: one of them writes into .venv at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another installation is running here; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def pip_command(*arguments: str) -> tuple[str, ...]:
    """This environment's pip."""
    return (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *arguments)


def ask(wanted: list[str], report: Path) -> list[Download]:
    """What pip would install; it writes its report to `report`.

    Raises:
        InstallError: it cannot be installed; why has been printed.
    """
    command = pip_command(*wanted, "--dry-run", "--report", str(report))
    answer = subprocess.run(  # noqa: S603 -- arguments of the person who calls
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if answer.returncode:
        print(answer.stdout, end="", file=sys.stderr)
        raise InstallError
    return read_report(json.loads(report.read_text()))


def say(text: str) -> None:
    """A line of ours among pip's."""
    print(f"== {text}", file=sys.stderr, flush=True)


def install(arguments: list[str]) -> None:
    """Says what is missing and has pip bring it.

    Raises:
        InstallError: pip failed.
    """
    versions = installed_versions()
    if not versions.keys() >= set(NAMED_FIRST):
        say("asking pip what PyTorch needs here")
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        held = held_versions((ROOT / "uv.lock").read_text(), versions)
        constraints.write_text("\n".join(held) + "\n")
        wanted = [
            *("--requirement", str(REQUIREMENTS), "--constraint", str(constraints)),
            *arguments,
        ]
        files = ask(wanted, Path(scratch) / "report.json")
        if not files:
            named = ", ".join(f"{name} {versions[name]}" for name in NAMED_FIRST)
            say(f"{named}: installed already")
            return
        say(describe(with_sizes(files)))
        # Exactly what was said, and no line for each of the many that are there already.
        exact = [f"{file.name}=={file.version}" for file in files]
        command = pip_command("--no-deps", *exact, *arguments)
        if subprocess.run(command, check=False).returncode:  # noqa: S603 -- likewise
            raise InstallError
    say("ready: the torch backend can run (.venv/bin/backplane backends)")


def main(arguments: list[str]) -> int:
    """Exit status 1 if pip failed, 130 if somebody stopped it."""
    try:
        with locked(ROOT / ".tools" / ".lock"):
            install(arguments)
    except InstallError:
        print(WITHOUT, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
