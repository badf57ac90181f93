"""docs/conformance.md lists every test with its own words, and everything a subclass may say."""

import re
from pathlib import Path

import pytest
from backplane_core.testing.conformance.base import ConformanceBase
from backplane_core.testing.conformance.suite import standard_tests

PAGE = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)(?:\(\w*\))?` \| (.*) \|$", PAGE, re.MULTILINE))
HELPERS = {"start_worker", "prompts", "prompt", "long_prompt", "room", "submit_longest"}


@pytest.mark.parametrize("name", standard_tests())
def test_every_test_stands_there_in_its_own_words(name: str) -> None:
    assert ROWS[name] == standard_tests()[name].__doc__.strip().splitlines()[0]


def test_no_test_stands_there_that_is_not() -> None:
    assert {name for name in ROWS if name.startswith("test_")} == set(standard_tests())


def test_everything_a_subclass_may_say_stands_there() -> None:
    said = {name for name in ROWS if not name.startswith("test_")}
    public = {*ConformanceBase.__annotations__, *vars(ConformanceBase)}
    public = {name for name in public if not name.startswith(("_", "require"))}
    assert said == public - HELPERS
