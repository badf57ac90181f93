"""What is freed while a model is loaded is the system's again, though its neighbours stay."""

import gc
import mmap
import platform
from pathlib import Path

import pytest
import torch
from backplane_torch.engine.checkpoint.allocator import frees_at_once

MIB = 2**20

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other allocators have no such thresholds"
)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def freed_of_every_second_block() -> float:
    """How much of 64 MiB goes back when every second MiB is freed.

    All or nothing, give or take what the rest of a large process does meanwhile.
    """
    gc.collect()
    blocks = [torch.ones(MIB, dtype=torch.uint8) for _ in range(128)]
    full = resident_bytes()
    del blocks[::2]
    return (full - resident_bytes()) / (64 * MIB)


def test_blocks_go_back_one_by_one() -> None:
    with frees_at_once():
        assert freed_of_every_second_block() > 0.5


def test_afterwards_blocks_are_kept_for_the_next_ones() -> None:
    with frees_at_once():
        pass
    assert freed_of_every_second_block() < 0.5


def test_the_thresholds_come_back_after_a_failure() -> None:
    with pytest.raises(ValueError, match="broken"), frees_at_once():
        raise ValueError("broken")
    assert freed_of_every_second_block() < 0.5


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    with frees_at_once():
        assert torch.ones(2).sum() == 2
