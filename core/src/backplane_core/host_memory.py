"""How much memory of the host is free: the machine's, or a container's limit."""

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Memory a process may still take, the page cache counted as free.

    Where neither file is there (not Linux), the answer is 4 GiB, a guess that harms nobody.
    """
    bounds = [bound for bound in (_of_machine(meminfo), _of_container(cgroup)) if bound is not None]
    return min(bounds, default=4 * 2**30)


def _of_machine(meminfo: Path) -> int | None:
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _of_container(cgroup: Path) -> int | None:
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = (cgroup / "memory.current").read_text().strip()
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
