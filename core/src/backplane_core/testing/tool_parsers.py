"""What every `ToolParser` must do, for whoever writes one: `check_answer` in a test of theirs."""

from collections.abc import Iterable, Sequence
from itertools import combinations

from backplane_core.tool_parsers import ToolFunction, ToolParser

Call = tuple[str, str]
Answer = tuple[str, tuple[Call, ...]]


def read_answer(
    parser_class: type[ToolParser], functions: Sequence[ToolFunction], pieces: Iterable[str]
) -> Answer:
    """What an answer that comes in these pieces turns out to be.

    Returns:
        Its content, and its calls: name and the arguments' JSON text.

    Raises:
        AssertionError: calls are not numbered from 0 in order, each with its name first.
    """
    parser = parser_class(functions)
    content: list[str] = []
    names: list[str] = []
    arguments: list[list[str]] = []
    for parsed in [*map(parser.push, pieces), parser.finish()]:
        content.append(parsed.content)
        for call in parsed.calls:
            if call.name is not None:
                _expect(call.index == len(names), f"call {call.index} is told of out of turn")
                names.append(call.name)
                arguments.append([])
            _expect(call.index < len(names), f"call {call.index} has no name in its first delta")
            arguments[call.index].append(call.arguments)
    joined = ("".join(pieces) for pieces in arguments)
    return "".join(content), tuple(zip(names, joined, strict=True))


def check_answer(
    parser_class: type[ToolParser],
    functions: Sequence[ToolFunction],
    text: str,
    expected: Answer,
    *,
    max_pieces: int = 3,
) -> None:
    """Read a text whole, character by character, and cut into pieces in every way there is.

    Args:
        parser_class: the parser under test.
        functions: those that may be called.
        text: an answer as a model writes it. Cutting it in three takes time by the square of
            its length; some 60 characters take less than a tenth of a second.
        expected: its content, and its calls: name and the arguments' JSON text.
        max_pieces: into how many it is cut at most.

    Raises:
        AssertionError: a cut changes what it comes to, or a call is to no function.
    """
    _expect_answer(read_answer(parser_class, functions, [text]), expected, "whole")
    _expect_answer(read_answer(parser_class, functions, text), expected, "as characters")
    for num_cuts in range(1, max_pieces):
        for cuts in combinations(range(len(text) + 1), num_cuts):
            pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            _expect_answer(read_answer(parser_class, functions, pieces), expected, f"as {pieces}")
    known = {function.name for function in functions}
    for name, arguments in expected[1]:
        _expect(name in known, f"{name} is none of the functions")
        _expect(arguments.startswith("{"), f"{name}'s arguments are no object: {arguments}")


def _expect_answer(found: Answer, expected: Answer, how: str) -> None:
    _expect(found == expected, f"read {how}, it comes to {found}, not to {expected}")


def _expect(holds: bool, why: str) -> None:
    if not holds:
        raise AssertionError(why)
