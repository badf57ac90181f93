"""The most that a server's processes held in memory over a while, as if it stood alone.

Shared pages count once: of a file those of the process that maps most of it, of anonymous memory
each process's share. Another server that maps the same files takes nothing off, as in PSS it would.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PEAK_BEGINS_ANEW: Final = "5"
_KIB: Final = 1024
File = tuple[str, str]
"""Device and inode."""


def begin(pids: Iterable[int]) -> None:
    """From now on counts what is held; until then, it is since each process began."""
    for pid in pids:
        try:
            (_PROC / str(pid) / "clear_refs").write_text(_PEAK_BEGINS_ANEW)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended


def peak_bytes(pids: Iterable[int]) -> int:
    """What they hold together now, and by how much each of them held more at its own peak.

    Never too little, too much where two had their peaks at different times. It is what is resident:
    pages of a mapped file, which the system could drop and read again, are part of it.
    """
    anonymous = above = 0
    by_file: defaultdict[File, int] = defaultdict(int)
    for pid in pids:
        folder = _PROC / str(pid)
        try:
            shared = _fields(folder / "smaps_rollup", "Pss_Anon")["Pss_Anon"]
            resident = _fields(folder / "status", "VmHWM", "VmRSS")
            files = mapped(folder.joinpath("smaps").read_text().splitlines())
        except (FileNotFoundError, ProcessLookupError, KeyError):
            continue  # it has ended; of the dead whom nobody has waited for, files lack fields
        anonymous += shared
        above += max(0, resident["VmHWM"] - resident["VmRSS"])
        for file, held in files.items():
            by_file[file] = max(by_file[file], held)
    return anonymous + above + sum(by_file.values())


def mapped(lines: Iterable[str]) -> dict[File, int]:
    """Resident bytes by file, of a process's `smaps` line by line; own copies of pages apart."""
    found: defaultdict[File, int] = defaultdict(int)
    file = None
    for line in lines:
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):  # a mapping's head: addresses, rights, offset, device, inode
            _, _, device, inode, *_ = rest.split()
            file = None if inode == "0" else (device, inode)
        elif file is not None and name in {"Rss:", "Anonymous:"}:
            held = int(rest.split()[0]) * _KIB
            found[file] += held if name == "Rss:" else -held
    return dict(found)


def _fields(path: Path, *names: str) -> dict[str, int]:
    """Bytes of the lines "NAME:   123 kB"."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: int(rest.split()[0]) * _KIB for name, _, rest in lines if name in names}
