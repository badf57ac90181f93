"""The kit's pytest plugin: fixtures of the conformance suite, and what a skip costs.

Loaded by every pytest run beside an installed core, so it imports nothing heavy by itself.
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from backplane_core.testing.conformance.base import ConformanceBase
    from backplane_core.testing.conformance.shared_worker import SharedWorker
    from backplane_core.testing.worker_client import WorkerClient

pytest.register_assert_rewrite("backplane_core.testing.conformance")

_MARK = "backplane_conformance"
_skips = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the list of skips."""
    config.stash[_skips] = []


@pytest.fixture(scope="class")
def backplane_worker(request: pytest.FixtureRequest) -> Iterator["SharedWorker"]:
    """The worker that the tests of one conformance class share; restarted when a test broke it."""
    from backplane_core.testing.conformance.shared_worker import (  # noqa: PLC0415 -- kept light
        SharedWorker,
    )

    suite = cast("type[ConformanceBase]", request.cls)
    shared = SharedWorker(suite())
    yield shared
    shared.close()


@pytest.fixture
def backplane_client(backplane_worker: "SharedWorker") -> Iterator["WorkerClient"]:
    """A connection of its own to the shared worker, which is idle before and after."""
    yield backplane_worker.connect()
    backplane_worker.settle()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A conformance test may skip, for whatever reason, only where its class allows it."""
    report = yield
    cls: Any = getattr(item, "cls", None)
    if report.skipped and getattr(cls, _MARK, False):
        name = getattr(item, "originalname", item.name)
        item.config.stash[_skips].append(f"{cls.__name__}.{item.name}: {_reason(report)}")
        if name not in cls.allowed_skips:
            report.outcome = "failed"
            report.longrepr = (
                f"{name} skipped ({_reason(report)}), but {cls.__name__}.allowed_skips "
                "does not hold it: mend the backend, or commit the skip"
            )
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was skipped and why, with or without -r."""
    if config.stash[_skips]:
        terminalreporter.section("backend conformance: skipped")
        for line in config.stash[_skips]:
            terminalreporter.write_line(line)


def _reason(report: pytest.TestReport) -> str:
    where = report.longrepr
    text = str(where[2] if isinstance(where, tuple) else where)
    return text.removeprefix("Skipped: ")
