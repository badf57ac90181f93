"""Every standard test bites: a backend with one fault fails that test, and no other."""

import concurrent.futures
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest
from backplane_core.testing.conformance.suite import standard_tests

HERE = Path(__file__).parent
# The suite mostly waits for clocks, so more runs than processors are worth their start.
NUM_SHARDS = 15

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict[str, str]]:
    """For each broken backend's test: what became of every test of the suite."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "pytest.ini").write_text("[pytest]\n")
    with concurrent.futures.ThreadPoolExecutor(NUM_SHARDS) as pool:
        reports = pool.map(lambda shard: run_shard(folder, shard), range(NUM_SHARDS))
        return {test: results for report in reports for test, results in report.items()}


def run_shard(folder: Path, shard: int) -> dict[str, dict[str, str]]:
    report = folder / f"report-{shard}.xml"
    settings = folder / "pytest.ini"
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "broken_suite.py", "-q", "--no-header"),
            *("-p", "backplane_core.testing.pytest_plugin", "-p", "no:cacheprovider"),
            *("-c", str(settings), "--rootdir", str(HERE), "--import-mode=importlib"),
            *("--tb=short", f"--basetemp={folder / str(shard)}", f"--junitxml={report}"),
        ],
        cwd=HERE,
        env=os.environ
        | {
            "PYTHONPATH": str(HERE),
            "BROKEN_SHARD": f"{shard}/{NUM_SHARDS}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            # Hundreds of workers start: compile what they import once.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED, finished.stdout + finished.stderr
    results: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 -- our own report
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
