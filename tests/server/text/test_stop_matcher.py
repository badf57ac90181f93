"""Whatever way text is cut into pieces, the stop matcher answers as for the whole text."""

import itertools

import pytest
from backplane_server.text.stop_matcher import StopMatcher
from hypothesis import given
from hypothesis import strategies as st

LETTERS = st.text(alphabet="ab\n", max_size=14)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3).map(tuple)


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def reference(text: str, stops: tuple[str, ...], *, keep: bool) -> tuple[str, bool]:
    """Read a character at a time and look whether any stop string has just ended."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return (text[:end] if keep else text[: end - len(longest)]), True
    return text, False


def run(pieces: list[str], stops: tuple[str, ...], *, keep: bool) -> tuple[str, bool]:
    matcher = StopMatcher(stops, keep=keep)
    text, shown = "", 0
    for piece in pieces:
        text += piece
        step = matcher.push(piece)
        assert step.num_visible >= shown, "what was shown is never taken back"
        shown = step.num_visible
        if step.matched:
            return text[:shown], True
    return text[: matcher.finish().num_visible], False


@given(text=LETTERS, stops=STOPS, places=st.lists(st.integers(0, 20)), keep=st.booleans())
def test_any_cut_gives_the_answer_of_the_whole(text, stops, places, keep):
    assert run(cut(text, places), stops, keep=keep) == reference(text, stops, keep=keep)


@pytest.mark.parametrize("keep", [True, False])
def test_every_single_and_double_cut_of_one_text(keep):
    text, stops = "say STOP and more", ("STOP", "TOPS")
    expected = "say STOP" if keep else "say "
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            pieces = [text[:first], text[first:second], text[second:]]
            assert run(pieces, stops, keep=keep) == (expected, True)


@given(text=LETTERS, stops=STOPS, places=st.lists(st.integers(0, 20)))
def test_no_more_is_held_back_than_may_begin_a_stop_string(text, stops, places):
    matcher, seen = StopMatcher(stops, keep=False), ""
    for piece in cut(text, places):
        seen += piece
        step = matcher.push(piece)
        if step.matched:
            return
        held = next(
            size
            for size in range(len(seen), -1, -1)
            if not size or any(stop.startswith(seen[-size:]) for stop in stops)
        )
        assert step.num_visible == len(seen) - held


def test_a_text_that_is_all_but_a_long_stop_string_is_held_back_and_let_go():
    matcher = StopMatcher(("a" * 999 + "b",), keep=False)
    assert matcher.push("a" * 5000).num_visible == 5000 - 999
    assert matcher.push("a").num_visible == 5001 - 999
    assert matcher.push("c").num_visible == 5002
    assert matcher.push("a" * 999 + "b").matched


def test_holds_back_only_what_may_be_a_stop_string():
    matcher = StopMatcher(("<end>",), keep=False)
    assert matcher.push("abc<en").num_visible == 3
    assert matcher.push("x").num_visible == 7
    assert matcher.push("<").num_visible == 7
    assert matcher.finish().num_visible == 8


def test_a_kept_stop_string_holds_nothing_back():
    assert StopMatcher(("<end>",), keep=True).push("abc<en").num_visible == 6


def test_nothing_may_follow_a_match():
    matcher = StopMatcher(("x",), keep=False)
    matcher.push("x")
    with pytest.raises(RuntimeError):
        matcher.push("y")
