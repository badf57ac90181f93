"""docs/examples/tagged_calls, the family that the documentation shows, does what it says."""

import sys
from pathlib import Path

import pytest
from backplane_core.testing.tool_parsers import check_answer

from tests.server.tools.answers import FUNCTIONS
from tests.server.tools.walk import allows

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "tagged_calls"
CASES = {
    "Hello <b>.": ("Hello <b>.", ()),
    'a <function=now>{"b": 1}</function> c': ("a  c", (("now", '{"b": 1}'),)),
    "<function=now>{}</function><function=now>{}</function>": ("", (("now", "{}"),) * 2),
    "<function=rm>{}</function>": ("rm>{}", ()),
    "<function=now>{</function>": ("now>{", ()),
    "<function=now>{}</func": ("now>{}</func", ()),
    "<func": ("<func", ()),
}


@pytest.fixture
def parser_class(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from backplane_tagged_calls import TaggedCallParser  # noqa: PLC0415 -- the path is set here

    yield TaggedCallParser
    del sys.modules["backplane_tagged_calls"]


@pytest.mark.parametrize("text", CASES)
def test_every_cut_comes_to_the_same(parser_class, text):
    check_answer(parser_class, FUNCTIONS, text, CASES[text])


def test_its_grammar_allows_calls_and_nothing_else(parser_class):
    grammar = parser_class.grammar(FUNCTIONS, parallel=True, special_tokens={})
    call = '<function=get_weather>{"city":"Oslo"}</function>'
    assert allows(grammar, call + "<function=now>{}</function>", {})
    assert not allows(grammar, call + "words", {})
    assert not allows(grammar, '<function=get_weather>{"city":1}</function>', {})


def test_its_marks_choose_it(parser_class):
    assert parser_class.matches("<function={{ name }}>{{ arguments }}</function>")
    assert not parser_class.matches("<tool_call>")
