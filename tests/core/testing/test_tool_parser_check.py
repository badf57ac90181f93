"""The check for plugins' parsers catches what goes wrong with them."""

import pytest
from backplane_core.messages import Grammar
from backplane_core.testing.tool_parsers import check_answer, read_answer
from backplane_core.tool_parsers import ParsedText, ToolCallDelta, ToolFunction, ToolParser

FUNCTIONS = [ToolFunction(name="f")]
CALL = ToolCallDelta(index=0, name="f", arguments="{}")


class Buffered(ToolParser):
    """Right, as it looks at nothing before the end: "!" is a call."""

    name = "buffered"
    call = CALL

    def __init__(self, functions):
        super().__init__(functions)
        self.text = ""

    @classmethod
    def matches(cls, template):
        return False

    @classmethod
    def grammar(cls, functions, *, parallel, special_tokens):
        return Grammar(kind="regex", source="!")

    def push(self, text):
        self.text += text
        return ParsedText()

    def finish(self):
        calls = (self.call,) if "!" in self.text else ()
        return ParsedText(content=self.text.replace("!", ""), calls=calls)


class Hasty(Buffered):
    """Looks at each piece alone."""

    def push(self, text):
        return ParsedText(content="" if text == "ab" else text)

    def finish(self):
        return ParsedText()


class Nameless(Buffered):
    call = ToolCallDelta(index=0, arguments="{}")


class Skipping(Buffered):
    call = ToolCallDelta(index=1, name="f", arguments="{}")


class Inventive(Buffered):
    call = ToolCallDelta(index=0, name="g", arguments="{}")


class Listing(Buffered):
    call = ToolCallDelta(index=0, name="f", arguments="[]")


def test_a_right_parser_passes():
    check_answer(Buffered, FUNCTIONS, "a!b", ("ab", (("f", "{}"),)))
    check_answer(Buffered, FUNCTIONS, "", ("", ()))


BROKEN = {
    Hasty: ("xaby", ("xaby", ()), r"as \['x', 'ab', 'y'\]"),
    Nameless: ("!", ("", (("f", "{}"),)), "has no name"),
    Skipping: ("!", ("", (("f", "{}"),)), "out of turn"),
    Inventive: ("!", ("", (("g", "{}"),)), "none of the functions"),
    Listing: ("!", ("", (("f", "[]"),)), "no object"),
}


@pytest.mark.parametrize("parser", BROKEN)
def test_a_broken_parser_is_caught(parser):
    text, expected, why = BROKEN[parser]
    with pytest.raises(AssertionError, match=why):
        check_answer(parser, FUNCTIONS, text, expected)


def test_cutting_in_two_alone_would_miss_the_hasty_one():
    text, expected, _ = BROKEN[Hasty]
    check_answer(Hasty, FUNCTIONS, text, expected, max_pieces=2)
    assert read_answer(Hasty, FUNCTIONS, ["x", "ab", "y"]) != expected


def test_what_is_expected_is_compared():
    with pytest.raises(AssertionError, match="read whole"):
        check_answer(Buffered, FUNCTIONS, "a", ("b", ()))
