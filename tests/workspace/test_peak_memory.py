"""What a server is said to have held at its peak, of real processes."""

import mmap
import os
import subprocess
import sys

import pytest

from benchmarks import peak_memory

MIB = 2**20
# Holds so many MiB and lets go of them, then does what it is told, line by line.
HOLDER = """
import mmap, sys
path = sys.argv[1]
held = {}
for line in sys.stdin:
    what, mib = line.split()
    size = int(mib) << 20
    if what == "take":
        held[mib] = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(0, size, mmap.PAGESIZE):
            held[mib][page] = 1
    elif what == "drop":
        held.pop(mib).close()
    else:
        file = open(path, "rb")
        held["file"] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        for page in range(0, size, mmap.PAGESIZE):
            held["file"][page]
    print("done", flush=True)
"""


class Holder:
    """A process that holds what it is told to."""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, what, mib):
        self.process.stdin.write(f"{what} {mib}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(64 * MIB))
    return path


@pytest.fixture
def start(file):
    holders = []

    def started():
        holders.append(Holder(file))
        holders[-1].do("take", 1)  # it runs
        return holders[-1]

    yield started
    for holder in holders:
        holder.process.kill()
        holder.process.communicate()


def mib_of(*holders):
    return peak_memory.peak_bytes([holder.process.pid for holder in holders]) / MIB


def test_what_was_let_go_counts_until_the_peak_begins_anew(start):
    holder = start()
    before = mib_of(holder)
    holder.do("take", 100)
    assert mib_of(holder) - before == pytest.approx(100, abs=8)
    holder.do("drop", 100)
    assert mib_of(holder) - before == pytest.approx(100, abs=8)
    peak_memory.begin([holder.process.pid])
    assert mib_of(holder) - before == pytest.approx(0, abs=8)


def test_a_file_counts_once_whoever_else_maps_it(start, file):
    first, second, stranger = start(), start(), start()
    alone, both = mib_of(first), mib_of(first, second)
    stranger.do("map", 64)
    first.do("map", 64)
    assert mib_of(first) - alone == pytest.approx(64, abs=8)
    second.do("map", 32)
    assert mib_of(first, second) - both == pytest.approx(64, abs=8)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ):
        assert mib_of(first, second) - both == pytest.approx(64, abs=8)


def test_of_a_file_own_copies_of_pages_are_not_its():
    lines = [
        "7f00-7f10 rw-p 00000000 fe:00 260850                     /usr/lib/libx.so",
        "Rss:                  40 kB",
        "Pss:                  20 kB",
        "Anonymous:            12 kB",
        "VmFlags: rd wr mr mw me",
        "7f10-7f20 r-xp 00000000 fe:00 260850                     /usr/lib/libx.so",
        "Rss:                   8 kB",
        "Anonymous:             0 kB",
        "7f20-7f30 rw-p 00000000 00:00 0                          [heap]",
        "Rss:                 100 kB",
        "Anonymous:           100 kB",
    ]
    assert peak_memory.mapped(lines) == {("fe:00", "260850"): 36 * 1024}


def test_who_has_ended_counts_nothing(start):
    holder = start()
    holder.process.kill()
    os.waitid(os.P_PID, holder.process.pid, os.WEXITED | os.WNOWAIT)  # dead, but not gone
    peak_memory.begin([holder.process.pid])
    assert mib_of(holder) == 0
    holder.process.communicate()
    peak_memory.begin([holder.process.pid])
    assert mib_of(holder) == 0
