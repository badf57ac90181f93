"""The compiled library's threads: torch's own, and every task once."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from backplane_torch.engine.devices.native import library

pytestmark = pytest.mark.skipif(
    library.load() is None or shutil.which("cc") is None, reason="nothing is compiled here"
)

COUNT = """
#include "threads.h"
#include <stdatomic.h>
static void count(void *all, int64_t index) { atomic_fetch_add((atomic_int *)all + index, 1); }
void count_tasks(int64_t num_tasks, int *counts) { each_task(num_tasks, count, counts); }
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the same sources, and whatever library a test puts there."""
    native = Path(library.__file__).parent
    for source in native.glob("*.[ch]"):
        shutil.copy(source, tmp_path)
    made = tmp_path / "libkernels.so"
    monkeypatch.setattr(library, "_LIBRARY", made)
    return made


def why_not(caplog):
    with caplog.at_level("WARNING"):
        assert library.load.__wrapped__() is None
    (record,) = caplog.records
    return record.getMessage()


def test_what_is_not_compiled_is_told(elsewhere, caplog):
    assert not elsewhere.exists()
    assert "nothing is compiled; install a C compiler" in why_not(caplog)


def test_what_cannot_be_loaded_is_told_with_its_reason(elsewhere, caplog):
    elsewhere.write_bytes(b"no library")
    assert "libkernels.so cannot be loaded: " in why_not(caplog)


def test_a_library_of_other_sources_is_not_taken(elsewhere, caplog):
    shutil.copy(Path(library.__file__).with_name("libkernels.so"), elsewhere)
    assert library.load.__wrapped__() is not None
    (elsewhere.parent / "sources.c").write_text("/* changed */")
    assert "of other sources than lie beside it" in why_not(caplog)


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """`threads.c` with tasks that count themselves."""
    folder = tmp_path_factory.mktemp("counting")
    (folder / "count.c").write_text(COUNT)
    native = Path(library.__file__).parent
    subprocess.run(
        [
            *("cc", "-O2", "-shared", "-fPIC", f"-I{native}"),
            *(folder / "count.c", native / "threads.c", "-o", folder / "count.so"),
        ],
        check=True,
    )
    return ctypes.CDLL(str(folder / "count.so"))


@pytest.mark.parametrize("threads", ["torch's", "one"])
@pytest.mark.parametrize("num_tasks", [0, 1, 2, 1000])
def test_every_task_is_done_once(counting, threads, num_tasks):
    if threads == "one":
        counting.bp_use_threads(None)
    else:
        library._share_threads(counting)
    counts = np.zeros(1001, np.int32)
    counting.count_tasks(ctypes.c_int64(num_tasks), ctypes.c_void_p(counts.ctypes.data))
    assert counts[:num_tasks].tolist() == [1] * num_tasks
    assert not counts[num_tasks:].any()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_second_runtime_is_loaded_and_no_thread_is_added():
    program = """
import os, torch
from backplane_torch.engine.devices.int8_rows import CompiledRows
from backplane_torch.engine.devices.native import library

torch.set_num_threads(3)
rows = torch.ones(4000, 1000)
rows @ torch.ones(1000, 1000), rows.exp()
before = len(os.listdir("/proc/self/task"))
CompiledRows(library.load()).quantize(rows)
files = {line.split()[-1] for line in open("/proc/self/maps") if "omp" in line and ".so" in line}
print(before > 1, len(os.listdir("/proc/self/task")) - before, len(files))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.split() == ["True", "0", "1"]


def test_torch_still_computes_with_as_many_threads(counting):
    before = torch.get_num_threads()
    library._share_threads(counting)
    counts = np.zeros(4, np.int32)
    counting.count_tasks(ctypes.c_int64(4), ctypes.c_void_p(counts.ctypes.data))
    assert torch.get_num_threads() == before
