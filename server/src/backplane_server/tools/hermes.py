"""Hermes, Qwen2.5, Qwen3 and Backplane's demo model: <tool_call>{JSON}</tool_call>."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction

from backplane_server.text.marker_filter import find_marker
from backplane_server.tools.call_object import CallObject, Progress
from backplane_server.tools.lark import CallGrammar
from backplane_server.tools.streaming import StreamingParser, skip_space

_OPEN = "<tool_call>"
_CLOSE = "</tool_call>"
# What models write between a call and its closing mark though it does not belong there.
_LITTER = "}],;"


class HermesParser(StreamingParser):
    """Reads calls between marks; a block may hold several, and may lack its closing mark."""

    name = "hermes"
    special_literals = (_OPEN, _CLOSE)
    markers: ClassVar[tuple[str, ...]] = (_OPEN, _CLOSE)

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._call: CallObject | None = None

    @classmethod
    def matches(cls, template: str) -> bool:
        """Whether the template writes the marks, with JSON and not with XML between them."""
        return _OPEN in template and "<function=" not in template and "<arg_key>" not in template

    @classmethod
    def grammar(
        cls,
        functions: Sequence[ToolFunction],
        *,
        parallel: bool,
        special_tokens: Mapping[str, int],
    ) -> Grammar:
        """One block for each call; a line break may stand at each of its ends."""
        grammar = CallGrammar(special_tokens)
        opening, closing = grammar.mark(_OPEN), grammar.mark(_CLOSE)
        call = grammar.json_calls(functions, arguments="arguments")
        block = grammar.rule("block", f"{opening} BREAK? {call} BREAK? {closing}")
        return grammar.build(block, separator="BREAK?", parallel=parallel)

    def _start(self, text: str, position: int) -> int:
        at, marker = self._until(text, position, (_OPEN,))
        if marker is None:
            return at
        self._begin_call()
        return at + len(marker)

    def _begin_call(self) -> None:
        self._call = CallObject(self.functions, self._out, bare=False)
        self._state = self._in_call

    def _in_call(self, text: str, position: int) -> int:
        assert self._call is not None  # noqa: S101 -- the state is entered with one
        position = self._call.feed(text, position)
        match self._call.progress:
            case Progress.DONE:
                self._state = self._after_call
            case Progress.BROKEN:
                self._state = self._swallow
            case Progress.NOT_A_CALL:
                self._out.content(self._call.raw)
                self._state = self._start
            case Progress.READING:
                pass
        return position

    def _after_call(self, text: str, position: int) -> int:
        """Inside of a block, behind a call: another, the closing mark, or something else."""
        position = skip_space(text, position)
        if position == len(text):
            return position
        if text[position] in _LITTER:
            return position + 1
        if text[position] == "{":
            self._begin_call()
        else:
            self._state = self._start
        return position

    def _swallow(self, text: str, position: int) -> int:
        """The rest of a call that stopped being JSON is neither call nor content."""
        at, marker = find_marker(text, position, self.markers)
        if marker == _CLOSE:
            at += len(marker)
        if marker is not None:
            self._state = self._start
        return at

    def _end(self, rest: str) -> None:
        if self._state == self._in_call and self._call is not None:
            self._out.content(self._call.raw)
        elif self._state != self._swallow:
            self._out.content(rest)
