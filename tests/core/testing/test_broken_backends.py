"""Every standard test bites: a backend with one fault fails that test, and no other."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest
from backplane_core.testing.conformance.suite import standard_tests

HERE = Path(__file__).parent
# The suite mostly waits for clocks, so more shards than processors are worth it.
NUM_SHARDS = 15

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict[str, str]]:
    """For each broken backend's test: what became of every test of the suite."""
    folder = tmp_path_factory.mktemp("broken")
    finished = subprocess.run(
        [sys.executable, HERE / "run_broken_suite.py", folder, str(NUM_SHARDS)],
        env=os.environ
        | {
            "PYTHONPATH": str(HERE),
            "BACKPLANE_EXTRA_PLUGINS": "broken_backends",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        check=False,
    )
    logs = "\n".join(log.read_text() for log in folder.glob("*.log"))
    assert finished.returncode == 0, logs
    reports = [report for path in folder.glob("*.xml") for report in read_report(path).items()]
    assert len(reports) == len(dict(reports))
    return dict(reports)


def read_report(path: Path) -> dict[str, dict[str, str]]:
    results: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 -- our own report
        bad = [child for child in case if child.tag in {"failure", "error", "skipped"}]
        broken_for = case.attrib["classname"].rpartition(".TestBroken_")[2]
        text = "\n".join(f"{child.tag}: {child.text or child.attrib['message']}" for child in bad)
        results[broken_for][case.attrib["name"]] = text
    return results


@pytest.mark.parametrize("test", standard_tests())
def test_fails_exactly_its_test(test: str, outcomes: dict[str, dict[str, str]]) -> None:
    assert test in outcomes, f"no broken backend for {test}"
    results = outcomes[test]
    assert set(results) == set(standard_tests())
    failed = {name: text for name, text in results.items() if text}
    others = "\n\n".join(f"{name}: {text}" for name, text in failed.items() if name != test)
    assert set(failed) == {test}, others


def test_there_is_no_broken_backend_too_many(outcomes: dict[str, dict[str, str]]) -> None:
    assert set(outcomes) == set(standard_tests())
