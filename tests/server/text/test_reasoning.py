"""Thinking is split from the answer, however the text is cut, and tags are never shown."""

from itertools import combinations

import pytest
from backplane_core.errors import SetupError
from backplane_server.text.reasoning import FAMILIES, ReasoningSplitter, choose_reasoning
from hypothesis import given, settings
from hypothesis import strategies as st

BY_NAME = {family.name: family for family in FAMILIES}
QWEN = BY_NAME["qwen3"]


def split(pieces, family=QWEN, *, inside=False):
    splitter = ReasoningSplitter(family, begins_inside=inside)
    deltas = [*map(splitter.push, pieces), splitter.finish()]
    return "".join(d.reasoning for d in deltas), "".join(d.content for d in deltas)


CASES = {
    "no thinking": ("Hello.", False, "", "Hello."),
    "no thinking, spaced": (" \nHello. \n", False, "", " \nHello. \n"),
    "tags": ("<think>\nHm. So.\n</think>\n\nHello.", False, "Hm. So.", "Hello."),
    "tags, space before": ("\n<think>Hm</think>Hello.\n", False, "Hm", "Hello.\n"),
    "nothing thought": ("<think>\n\n</think>\n\nHello.", False, "", "Hello."),
    "opened by the prompt": ("Hm.\n</think>\n\nHello.", True, "Hm.", "Hello."),
    "opened twice": ("<think>\nHm.\n</think>Hello.", True, "Hm.", "Hello."),
    "never closed": ("<think>Hm. <", False, "Hm. <", ""),
    "cut off in the closing tag": ("Hm.</thi", True, "Hm.</thi", ""),
    "cut off in the opening tag": ("<thi", False, "", "<thi"),
    "lines inside": ("<think>a\n\n b \n</think>c", False, "a\n\n b", "c"),
    "tags in the answer": ("a <think>b</think> c", False, "", "a b c"),
    "a second block": ("<think>a</think>b<think>c</think>d", False, "a", "bcd"),
    "nearly tags": ("<think>a</thin></think><thinks>", False, "a</thin>", "<thinks>"),
    "tags of tags": ("<think>x<th<think>ink>y</think>z", False, "xy", "z"),
    "empty": ("", False, "", ""),
    "only space": (" \n ", False, "", " \n "),
}


@pytest.mark.parametrize("case", CASES)
def test_every_cut_comes_to_the_same(case):
    text, inside, reasoning, content = CASES[case]
    whole = (reasoning, content)
    assert split([text], inside=inside) == whole
    assert split(text, inside=inside) == whole
    for first, second in combinations(range(len(text) + 1), 2):
        pieces = [text[:first], text[first:second], text[second:]]
        assert split(pieces, inside=inside) == whole


FRAGMENTS = st.sampled_from(
    ["<think>", "</think>", "<th", "ink>", "</", "<", "[THINK]", "[/THINK]", "[/TH", " ", "\n", "a"]
)


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(FRAGMENTS | st.text(max_size=3), max_size=20),
    family=st.sampled_from(FAMILIES),
    inside=st.booleans(),
)
def test_tags_are_never_shown_and_words_never_lost(pieces, family, inside):
    reasoning, content = split(pieces, family, inside=inside)
    assert (reasoning, content) == split(["".join(pieces)], family, inside=inside)
    for shown in (reasoning, content):
        assert family.opening not in shown
        assert family.closing not in shown
    assert "".join((reasoning + content).split()).count("a") == "".join(pieces).count("a")
    assert reasoning == reasoning.strip()


def test_thinking_streams():
    splitter = ReasoningSplitter(QWEN, begins_inside=False)
    assert splitter.push("<think>\n").reasoning == ""
    assert splitter.push("One").reasoning == "One"
    assert splitter.push(" two\n").reasoning == " two"
    assert splitter.push("three").reasoning == "\nthree"


@pytest.mark.parametrize(
    ("family", "prompt", "inside"),
    [
        ("qwen3", "<|im_start|>assistant\n", False),
        ("qwen3", "<|im_start|>assistant\n<think>\n", True),
        ("qwen3", "<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("qwen3", "what does <think> do? \nassistant:", False),
        ("deepseek_r1", "<|Assistant|>", True),
        ("deepseek_r1", "<|Assistant|><think>\n", True),
        ("deepseek_r1", "<|Assistant|></think>", False),
        ("mistral", "[/INST]", False),
        ("mistral", "[/INST][THINK]", True),
    ],
)
def test_the_end_of_the_prompt_says_whether_an_answer_begins_in_thought(family, prompt, inside):
    assert BY_NAME[family].begins_inside(prompt) is inside
    delta = BY_NAME[family].splitter(prompt).push("Hm")
    assert (delta.reasoning, delta.content) == (("Hm", "") if inside else ("", "Hm"))


def test_a_family_is_chosen_by_flag_or_template():
    assert choose_reasoning(None, "<think></think>") is None
    assert choose_reasoning("auto", "no tags") is None
    assert choose_reasoning("auto", None) is None
    assert choose_reasoning("auto", "{{ content.split('</think>')[-1] }}") is QWEN
    assert choose_reasoning("auto", "[THINK]...[/THINK]") is BY_NAME["mistral"]
    assert choose_reasoning("deepseek_r1", None) is BY_NAME["deepseek_r1"]
    with pytest.raises(SetupError, match=r"no reasoning parser is called qwen4.*qwen3"):
        choose_reasoning("qwen4", None)


def test_a_template_without_the_tags_casts_doubt_on_a_family():
    assert BY_NAME["deepseek_r1"].doubt("<think>") is None
    assert BY_NAME["deepseek_r1"].doubt("x.split('</think>')") is None
    assert BY_NAME["deepseek_r1"].doubt(None) is None
    assert "has no content" in BY_NAME["deepseek_r1"].doubt("[THINK]")
    assert "unasked" in BY_NAME["qwen3"].doubt("no tags")
    assert BY_NAME["mistral"].doubt("[/THINK]") is None
