"""docs/tools-and-reasoning.md has every family, and says of each what it is."""

import re
from pathlib import Path

import pytest
from backplane_core.testing.tool_parsers import read_answer
from backplane_core.tool_parsers import ToolFunction, ToolParser
from backplane_server.text.reasoning import FAMILIES as REASONING
from backplane_server.tools.builtin import FAMILIES
from backplane_server.tools.lark import MAX_CALLS
from backplane_server.tools.values import MAX_DEPTH

from tests.server.tools.answers import PARSERS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "tools-and-reasoning.md").read_text("utf-8")
ROWS = {
    row[0].strip("` "): row[1:]
    for line in PAGE.splitlines()
    if line.startswith("| `")
    for row in [re.split(r"(?<!\\)\|", line.strip("|"))]
}


def test_the_families_stand_in_the_order_in_which_they_are_tried():
    names = [name for name in ROWS if name in PARSERS]
    order = [family.name for family in FAMILIES]
    tools = [name for name in names if name != "mistral"]  # also the name of tags of reasoning
    assert tools == [name for name in order if name != "mistral"]
    assert (
        PAGE.index("| `hermes`") < PAGE.index("| `mistral` | Mistral,") < PAGE.index("| `pythonic`")
    )


SAMPLES = {
    "hermes": ['<tool_call>{"name": "f", "arguments": {…}}</tool_call>'],
    "mistral": ['[TOOL_CALLS][{"name": "f", "arguments": {…}}]', "[TOOL_CALLS]f[ARGS]{…}"],
    "pythonic": ['[f(a=1, b="x"), g()]'],
    "llama3_json": ['{"name": "f", "parameters": {…}}'],
    "json": ['{"name": "f", "arguments": {…}}'],
}


@pytest.mark.parametrize(("name", "sample"), [(n, s) for n, ss in SAMPLES.items() for s in ss])
def test_the_samples_are_calls(name, sample):
    assert f"`{sample}`" in PAGE
    functions = [ToolFunction(name="f"), ToolFunction(name="g")]
    content, calls = read_answer(PARSERS[name], functions, [sample.replace("{…}", "{}")])
    assert content == ""
    assert calls[0][0] == "f"


@pytest.mark.parametrize("family", REASONING, ids=lambda family: family.name)
def test_every_reasoning_family_stands_with_its_tags(family):
    assert f"| `{family.name}` | `{family.opening}`, `{family.closing}` |" in PAGE


def test_bounds_are_the_codes():
    assert f"bounded to {MAX_DEPTH} levels" in PAGE
    assert f"at most {MAX_CALLS} in an enforced answer" in " ".join(PAGE.split())


def test_what_a_parser_has_is_told():
    members = {name for name in dir(ToolParser) if not name.startswith("_")} | {"name"}
    for member in members:
        assert re.search(rf"`{member}[(`]", PAGE), member


def test_the_example_is_the_one_that_the_page_shows():
    assert "register(TaggedCallParser)" in PAGE
