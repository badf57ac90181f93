"""What is freed while a model is loaded is the system's again, though its neighbours stay."""

import platform
import subprocess
import sys

import pytest
import torch
from backplane_torch.engine.checkpoint.allocator import frees_at_once

# In a process of its own, where nobody else takes or frees memory meanwhile.
PRELUDE = """
import contextlib, gc, mmap
from pathlib import Path
import torch
from backplane_torch.engine.checkpoint.allocator import frees_at_once

MIB = 2**20

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

def freed_of_every_second_block():
    gc.collect()
    blocks = [torch.ones(MIB, dtype=torch.uint8) for _ in range(128)]
    full = resident_bytes()
    del blocks[::2]
    return (full - resident_bytes()) / (64 * MIB)
"""
WHILE_LOADING = """
with frees_at_once():
    print(freed_of_every_second_block())
"""
AFTERWARDS = """
with frees_at_once():
    pass
print(freed_of_every_second_block())
"""
AFTER_A_FAILURE = """
with contextlib.suppress(ValueError), frees_at_once():
    raise ValueError("broken")
print(freed_of_every_second_block())
"""

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other allocators have no such thresholds"
)


def share_freed(code: str) -> float:
    """How much of 64 MiB goes back when every second MiB is freed."""
    command = [sys.executable, "-c", PRELUDE + code]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


@glibc
def test_blocks_go_back_one_by_one() -> None:
    assert share_freed(WHILE_LOADING) > 0.9


@glibc
@pytest.mark.parametrize("code", [AFTERWARDS, AFTER_A_FAILURE], ids=["loaded", "failed"])
def test_afterwards_blocks_are_kept_for_the_next_ones(code: str) -> None:
    assert share_freed(code) < 0.1


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    with frees_at_once():
        assert torch.ones(2).sum() == 2
