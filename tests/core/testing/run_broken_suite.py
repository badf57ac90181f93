"""Runs `broken_suite` in shards, forked once all tests are collected: what they need exists once.

python run_broken_suite.py FOLDER NUM_SHARDS leaves FOLDER/<shard>.json: for each test class of the
shard and each of its tests what went wrong, "" if nothing; and FOLDER/<shard>.log.
"""

import itertools
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Never

import forked_worker  # noqa: F401 -- what all shards need, before they part
import pytest

HERE = Path(__file__).parent


class Shards:
    """A pytest plugin: the classes that were collected run side by side, in processes."""

    def __init__(self, folder: Path, num_shards: int) -> None:
        self._folder = folder
        self._num_shards = num_shards
        self._outcomes: dict[str, dict[str, str]] = defaultdict(dict)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        by_class = [
            list(items) for _, items in itertools.groupby(session.items, lambda one: one.cls)
        ]
        # Made once, here: the shards would race for it.
        session.config._tmp_path_factory.getbasetemp()
        shards: list[int] = []
        for shard in range(self._num_shards):
            pid = os.fork()
            if pid == 0:
                self._be_shard(shard, by_class[shard :: self._num_shards])
            shards.append(pid)
        for pid in shards:
            if os.waitpid(pid, 0)[1]:
                session.shouldfail = "a shard came to no end; its log says why"
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        _, cls, name = report.nodeid.split("::")
        bad = f"{report.when}: {report.longreprtext or report.longrepr}\n"
        self._outcomes[cls][name] = self._outcomes[cls].get(name, "") + (
            "" if report.passed else bad
        )

    def _be_shard(self, shard: int, by_class: list[list[pytest.Item]]) -> Never:
        log = os.open(self._folder / f"{shard}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = 1
        try:
            items = list(itertools.chain(*by_class))
            for item, following in itertools.zip_longest(items, items[1:]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            (self._folder / f"{shard}.json").write_text(json.dumps(self._outcomes))
            status = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # nothing of the parent's goes on here


def main(folder: Path, num_shards: int) -> int:
    (folder / "pytest.ini").write_text("[pytest]\n")
    arguments = [
        *(str(HERE / "broken_suite.py"), "-q", "--no-header", "--tb=short"),
        *("-c", str(folder / "pytest.ini"), "--rootdir", str(HERE), "--import-mode=importlib"),
        *("-p", "backplane_core.testing.pytest_plugin", "-p", "no:cacheprovider"),
        *("-p", "no:logging"),  # its handlers hold files that a forked worker has not
        *("-s", f"--basetemp={folder / 'temporary'}"),
    ]
    return int(pytest.main(arguments, plugins=[Shards(folder, num_shards)]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
