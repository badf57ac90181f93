"""Runs `broken_suite` in shards, forked so that what all need is imported once.

python run_broken_suite.py FOLDER NUM_SHARDS leaves FOLDER/<shard>.xml and FOLDER/<shard>.log.
"""

import os
import sys
from pathlib import Path
from typing import Never

import forked_worker  # noqa: F401 -- what all shards need, before they part
import pytest

HERE = Path(__file__).parent


def run_shard(folder: Path, shard: int, num_shards: int) -> Never:
    log = os.open(folder / f"{shard}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["BROKEN_SHARD"] = f"{shard}/{num_shards}"
    arguments = [
        *(str(HERE / "broken_suite.py"), "-q", "--no-header", "--tb=short"),
        *("-c", str(folder / "pytest.ini"), "--rootdir", str(HERE), "--import-mode=importlib"),
        *("-p", "backplane_core.testing.pytest_plugin", "-p", "no:cacheprovider"),
        *("-p", "no:logging"),  # its handlers hold files that a forked worker has not
        *(f"--basetemp={folder / str(shard)}", f"--junitxml={folder / f'{shard}.xml'}"),
    ]
    status = 1
    try:
        status = int(pytest.main(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # nothing of the parent's goes on here


def main(folder: Path, num_shards: int) -> int:
    (folder / "pytest.ini").write_text("[pytest]\n")
    shards: list[int] = []
    for shard in range(num_shards):
        pid = os.fork()
        if pid == 0:
            run_shard(folder, shard, num_shards)
        shards.append(pid)
    statuses = {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in shards}
    # Each shard holds broken backends, so each must have failed, and in no other way.
    return int(statuses != {pytest.ExitCode.TESTS_FAILED})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
