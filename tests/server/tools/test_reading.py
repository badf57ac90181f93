"""One answer through both parsers: thinking, words and calls."""

from backplane_server.text.reasoning import FAMILIES
from backplane_server.tools.reading import AnswerReader

from tests.server.tools.answers import CALL, FUNCTIONS, OSLO, PARSERS

QWEN = next(family for family in FAMILIES if family.name == "qwen3")
TEXT = (
    f"<think>\nI could <tool_call>{CALL}</tool_call>.\n</think>\n\nLet me look.\n"
    f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>"
)


def reader(*, reasoning=True, tools=True, parallel=True, enforced=False):
    return AnswerReader(
        QWEN.splitter("Hi") if reasoning else None,
        PARSERS["hermes"](FUNCTIONS) if tools else None,
        parallel=parallel,
        enforced=enforced,
    )


def joined(answer, pieces):
    deltas = [*map(answer.push, pieces), answer.finish()]
    calls = {}
    for delta in deltas:
        for call in delta.calls:
            name, arguments = calls.get(call.index, ("", ""))
            calls[call.index] = (name + (call.name or ""), arguments + call.arguments)
    return "".join(d.reasoning for d in deltas), "".join(d.content for d in deltas), calls


def test_calls_that_are_only_thought_of_are_not_made():
    answer = reader()
    thought = f"I could <tool_call>{CALL}</tool_call>."
    whole = (thought, "Let me look.", {0: ("get_weather", OSLO), 1: ("get_weather", OSLO)})
    assert joined(answer, [TEXT]) == whole
    assert answer.num_calls == 2
    for cut in range(len(TEXT) + 1):
        assert joined(reader(), [TEXT[:cut], TEXT[cut:]]) == whole
    assert joined(reader(), TEXT) == whole


def test_one_call_is_told_of_where_calls_are_not_parallel():
    answer = reader(parallel=False)
    assert joined(answer, TEXT)[1:] == ("Let me look.", {0: ("get_weather", OSLO)})
    assert answer.num_calls == 1


def test_without_parsers_text_is_content():
    assert joined(reader(reasoning=False, tools=False), TEXT) == ("", TEXT, {})


def test_without_tools_only_the_thinking_is_split():
    assert joined(reader(tools=False), ["<think>a</think>", "\nb\n"]) == ("a", "b\n", {})


def test_what_is_held_back_comes_with_the_end():
    assert joined(reader(), ["<think>a</think>b <tool"]) == ("a", "b <tool", {})
    assert joined(reader(reasoning=False), ["b <tool"]) == ("", "b <tool", {})


def test_an_enforced_call_that_is_cut_off_before_its_name_is_no_content():
    beginning = '<think>\nHm.\n</think>\n\n<tool_call>{"name": "get_wea'
    for cut in range(len(beginning) + 1):
        pieces = [beginning[:cut], beginning[cut:]]
        assert joined(reader(enforced=True), pieces) == ("Hm.", "", {})
    assert joined(reader(), [beginning])[1] == '{"name": "get_wea'
