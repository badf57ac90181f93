"""docs/architecture.md names every package directory, with a sentence, and none that is gone."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(?P<package>backplane_[a-z_.]+)` \| (?P<sentence>.+) \|$", re.MULTILINE)
MIN_WORDS = 5


def package_names():
    """Dotted name of every directory below a src/ that holds Python modules."""
    names = set()
    for source in [*ROOT.glob("*/src"), *ROOT.glob("backends/*/src")]:
        for module in source.rglob("*.py"):
            names.add(".".join(module.parent.relative_to(source).parts))
    return sorted(names)


@pytest.fixture(scope="module")
def rows():
    page = (ROOT / "docs" / "architecture.md").read_text()
    found = [(match["package"], match["sentence"]) for match in ROW.finditer(page)]
    assert len(found) == len(dict(found)), "a package stands twice in docs/architecture.md"
    return dict(found)


@pytest.mark.parametrize("package", package_names())
def test_the_package_has_its_sentence(rows, package):
    assert package in rows, f"add a row `{package}` with one sentence to docs/architecture.md"
    sentence = rows[package]
    assert sentence.endswith("."), sentence
    assert len(sentence.split()) >= MIN_WORDS, sentence


def test_no_row_outlives_its_package(rows):
    assert set(rows) <= set(package_names())
