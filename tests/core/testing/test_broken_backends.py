"""Every standard test bites: a backend with one fault fails that test, and no other.

Each against each would be thousands of test runs. Instead each fault meets the tests of its own
part of the suite by itself, and those of every other part together with all other faults.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from backplane_core.testing.conformance.suite import standard_tests

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # where the broken backends' workers find them, too
from broken_backends import APART, BROKEN, PARTS, part_of  # noqa: E402 -- just put on the path

# The suite mostly waits for clocks, so more shards than processors are worth it.
NUM_SHARDS = 24

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict[str, str]]:
    """For each fault, and for faults together: what became of the tests it was held to."""
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
    assert finished.returncode == pytest.ExitCode.OK, logs
    outcomes: dict[str, dict[str, str]] = defaultdict(dict)
    for path in folder.glob("*.json"):
        for suite, results in json.loads(path.read_text()).items():
            _, what, _ = suite.split("__")
            assert not outcomes[what].keys() & results.keys()
            outcomes[what] |= results
    return outcomes


def members(part: str) -> set[str]:
    return {test for test in standard_tests() if part_of(test) == part}


def failures(results: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in results.items() if text}


def told(failed: dict[str, str]) -> str:
    return "\n\n".join(f"{name}: {text}" for name, text in failed.items())


@pytest.mark.parametrize("test", standard_tests())
def test_a_fault_fails_its_test_and_no_other_of_its_part(
    test: str, outcomes: dict[str, dict[str, str]]
) -> None:
    assert test in BROKEN, f"no broken backend for {test}"
    results = outcomes[test]
    met = set(standard_tests()) if test in APART else members(part_of(test))
    assert set(results) == met
    failed = failures(results)
    assert set(failed) == {test}, told({name: failed[name] for name in failed if name != test})


@pytest.mark.parametrize("part", PARTS)
def test_all_other_parts_faults_together_fail_no_test_of_a_part(
    part: str, outcomes: dict[str, dict[str, str]]
) -> None:
    failed = failures(outcomes["elsewhere"])
    assert set(outcomes["elsewhere"]) == set(standard_tests())
    assert not failed.keys() & members(part), told(failed)


@pytest.mark.parametrize("part", PARTS)
def test_together_every_fault_still_fails_its_test(
    part: str, outcomes: dict[str, dict[str, str]]
) -> None:
    """Else the test above would prove nothing: one fault might hide another."""
    assert failures(outcomes["everywhere"]).keys() >= members(part) - set(APART)


def test_there_is_no_broken_backend_too_many() -> None:
    assert set(BROKEN) == set(standard_tests())
