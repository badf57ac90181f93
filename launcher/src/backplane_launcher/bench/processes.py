"""The processes of a server on this machine: who they are, their processor time and memory.

Reads /proc; where there is none, or the server is elsewhere, there is nothing to tell.
"""

import asyncio
import itertools
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_LISTEN: Final = "0A"
_LOOK_S: Final = 0.25
# Of a core; servers that stand idle have timers.
_REST: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """One process at one moment. `pss` shares pages among those who hold them; 0: not told."""

    pid: int
    name: str
    cpu_s: float
    rss: int
    pss: int


def is_local(host: str) -> bool:
    """Whether this name is this machine."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(_is_own(address) for address in found)


def _is_own(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def processes_at(port: int) -> list[int]:
    """The process ids of the server that listens at a port, those of its children with it.

    A server may have been started by a supervisor, whose other children belong to it: from whoever
    listens, we climb to parents of the same process group, short of our own forebears.
    """
    if not _PROC.joinpath("self/stat").exists():
        return []
    inodes = _listening(port)
    parents = _parents()
    holders = [pid for pid in parents if inodes and _holds(pid, inodes)]
    forebears = _forebears(os.getpid(), parents)
    roots = {_root_of(pid, parents, forebears) for pid in holders if pid not in forebears}
    return sorted(pid for pid in parents if roots.intersection(_forebears(pid, parents)))


def descendants_of(root: int) -> list[int]:
    """A process and all that it started, as far as their line is whole."""
    parents = _parents()
    return sorted(pid for pid in parents if root in _forebears(pid, parents))


def states_of(pids: list[int], *, with_memory: bool) -> dict[int, ProcessState]:
    """Each process now; those that have ended are left out. To sum up memory takes a while."""
    states: dict[int, ProcessState] = {}
    for pid in pids:
        try:
            states[pid] = ProcessState(
                pid=pid,
                name=_name(pid),
                cpu_s=time.clock_gettime(_cpu_clock(pid)),
                rss=_bytes(pid, "status", "VmRSS:") if with_memory else 0,
                pss=_bytes(pid, "smaps_rollup", "Pss:") if with_memory else 0,
            )
        except OSError:
            continue
    return states


async def come_to_rest(pids: list[int], limit_s: float = 10.0) -> None:
    """Wait until these processes leave the processor alone, or for `limit_s`.

    An engine's threads may spin for seconds after the last request.
    """
    before, until = cpu_s_of(pids), time.perf_counter() + limit_s
    while pids and time.perf_counter() < until:
        await asyncio.sleep(_LOOK_S)
        before, earlier = cpu_s_of(pids), before
        if before - earlier < _REST * _LOOK_S:
            return


def cpu_s_of(pids: list[int]) -> float:
    """The processor time that they have taken so far, in seconds."""
    return sum(state.cpu_s for state in states_of(pids, with_memory=False).values())


def _cpu_clock(pid: int) -> int:
    """What clock_getcpuclockid(3) gives; /proc has the same in hundredths of a second."""
    return (~pid << 3) | 2


def _listening(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = _PROC.joinpath(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _holds(pid: int, inodes: set[str]) -> bool:
    try:
        with os.scandir(_PROC / str(pid) / "fd") as entries:
            return any(_target(entry.path) in inodes for entry in entries)
    except OSError:  # gone, or another user's
        return False


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 -- of every open file of every process: a Path is slow
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before may hold anything."""
    text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _parents() -> dict[int, tuple[int, int]]:
    """Every process's parent and process group."""
    found: dict[int, tuple[int, int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            try:
                fields = _stat(int(entry.name))
            except OSError:
                continue
            found[int(entry.name)] = (int(fields[1]), int(fields[2]))
    return found


def _forebears(pid: int, parents: dict[int, tuple[int, int]]) -> set[int]:
    """The process and those it descends from."""
    line: set[int] = set()
    while pid in parents and pid not in line:
        line.add(pid)
        pid = parents[pid][0]
    return line


def _root_of(pid: int, parents: dict[int, tuple[int, int]], forebears: set[int]) -> int:
    while True:
        parent, group = parents[pid]
        if parent not in parents or parent in forebears or parents[parent][1] != group:
            return pid
        pid = parent


def _name(pid: int) -> str:
    """What the process is for: its module, script or program."""
    line = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    words = line.split("\0")
    program = Path(words[0]).name
    if program.startswith("python"):
        options = list(itertools.takewhile(lambda word: word.startswith("-"), words[1:]))
        target = "".join(words[1 + len(options) :][:1])
        if "-m" in options:
            return target
        if "-c" not in options:
            return Path(target).name or program
    return program or (_PROC / str(pid) / "comm").read_text(encoding="utf-8").strip()


def _bytes(pid: int, file: str, field: str) -> int:
    try:
        lines = (_PROC / str(pid) / file).read_text(encoding="utf-8").splitlines()
    except PermissionError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(field)]
    return 1024 * int(found[0]) if found else 0
