"""Each family reads what its models write; however it is cut, the same comes out."""

import json

import pytest
from backplane_core.testing.tool_parsers import check_answer
from backplane_server.tools.builtin import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.tools.answers import ANSWERS, CASES, FUNCTIONS, PARSERS, parsed

MAX_THREE = 64  # characters of an answer that is cut in three at every two places


@pytest.mark.parametrize(("family", "case"), CASES)
def test_an_answer_comes_to_its_content_and_calls(family, case):
    answer = ANSWERS[family][case]
    assert parsed(family, [answer.text]) == (answer.content, answer.calls)


@pytest.mark.parametrize(("family", "case"), CASES)
def test_every_cut_comes_to_the_same(family, case):
    text, content, calls = ANSWERS[family][case]
    max_pieces = 3 if len(text) <= MAX_THREE else 2
    expected = (content, calls)
    check_answer(PARSERS[family], FUNCTIONS, text, expected, max_pieces=max_pieces)


def test_every_family_has_short_answers_that_are_cut_in_three():
    for family, answers in ANSWERS.items():
        assert any(len(answer.text) <= MAX_THREE and answer.calls for answer in answers.values()), (
            family
        )


FRAGMENTS = [
    "<tool_call>", "</tool_call>", "<tool_", "call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]",
    "[TOOL_", "<|python_tag|>", "<|python_start|>", "<|python_end|>", "<|python_", "```json", "```",
    "get_weather", "now", "run-code", "rm", '"name"', '"arguments"', '"parameters"', '"city"',
    '{"name": "now", "arguments": {', '{"name": "get_weather", "parameters": {"city": "', "now(a=",
    "[now(", "{", "}", "[", "]", "(", ")", ":", ",", ";", "=", '"', "'", "\\", "\\u00e", "\\x4",
    "1", "-", ".5", "e", "true", "None", "null", " ", "\n", "\x00", "é", "😀", "words",
]  # fmt: skip
GARBAGE = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=30).map("".join)


def cut(draw, text):
    places = draw(st.lists(st.integers(0, len(text)), max_size=12).map(sorted))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize("family", PARSERS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_garbage_never_raises_and_cuts_never_matter(family, data):
    text = data.draw(GARBAGE)
    content, calls = parsed(family, [text])
    assert parsed(family, cut(data.draw, text)) == (content, calls)
    assert not any(marker in content for marker in PARSERS[family].markers)
    for name, arguments in calls:
        assert name in {function.name for function in FUNCTIONS}
        try:
            assert isinstance(json.loads(arguments), dict)
        except json.JSONDecodeError:
            # Where it stopped being JSON, or was cut off: the beginning of an object.
            assert arguments.startswith("{")


@pytest.mark.parametrize("family", PARSERS)
@settings(max_examples=40, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_characters="<[{`"), max_size=60))
def test_text_without_calls_is_content_whole(family, text):
    assert parsed(family, [text]) == (text, ())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=12,
)  # fmt: skip
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b_2", "city"]), VALUES, max_size=3)
WRITERS = {
    "hermes": lambda calls: "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"
        for name, arguments in calls
    ),
    "mistral": lambda calls: "".join(
        f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments, ensure_ascii=False)}"
        for name, arguments in calls
    ),
    "llama3_json": lambda calls: "; ".join(
        json.dumps({"name": name, "parameters": arguments}) for name, arguments in calls
    ),
    "pythonic": lambda calls: "[" + ", ".join(
        f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        for name, arguments in calls
    ) + "]",
    "json": lambda calls: json.dumps(
        [{"name": name, "arguments": arguments} for name, arguments in calls], indent=2
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", WRITERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_a_family_writes_is_read_back(family, data):
    calls = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["now", "get_weather"]), ARGUMENTS), min_size=1, max_size=3
        )
    )
    text = WRITERS[family](calls)
    content, found = parsed(family, cut(data.draw, text))
    assert content == ""
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


@pytest.mark.parametrize("family", PARSERS)
def test_little_is_held_back_unread(family):
    """So that a long answer in single characters takes time linear in its length."""
    for answer in ANSWERS[family].values():
        parser = PARSERS[family](FUNCTIONS)
        for character in answer.text:
            parser.push(character)
            assert len(parser._unread) <= 65


@pytest.mark.parametrize("family", PARSERS)
def test_arguments_stream_as_they_come(family):
    call = {
        "hermes": '<tool_call>{"name": "run-code", "arguments": {"source": "',
        "mistral": '[TOOL_CALLS]run-code[ARGS]{"source": "',
        "llama3_json": '{"name": "run-code", "parameters": {"source": "',
        "pythonic": '[run-code(source="',
        "json": '{"name": "run-code", "arguments": {"source": "',
    }[family]
    parser = PARSERS[family](FUNCTIONS)
    (told,) = parser.push(call).calls
    assert (told.name, told.arguments) == ("run-code", '{"source": "')
    for word in ("print", "(1)", "\n"):
        (delta,) = parser.push(word).calls
        assert (delta.index, delta.name) == (0, None)
        assert json.loads(f'"{delta.arguments}"') == word


def test_a_call_that_is_never_named_is_let_go_of():
    """Arguments that come before the name are held, but not without bound."""
    parser = PARSERS["hermes"](FUNCTIONS)
    shown = parser.push('<tool_call>{"arguments": {"a": "' + "x" * (1 << 20) + '"}, "name": "now"}')
    assert shown.calls == ()
    assert shown.content.startswith('{"arguments"')


def test_every_family_is_tested_and_generic_json_comes_last():
    assert {family.name for family in FAMILIES} == set(ANSWERS)
    assert len(FAMILIES) == len(ANSWERS)
    assert FAMILIES[-1].name == "json"
