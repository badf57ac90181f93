"""Hermes, Qwen2.5, Qwen3 and Backplane's demo model: <tool_call>{JSON}</tool_call>."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction

from backplane_server.tools.lark import LINE_BREAK, CallGrammar
from backplane_server.tools.object_calls import ObjectCallParser
from backplane_server.tools.streaming import skip_space

_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"
# What models write behind a call though it does not belong there.
_LITTER: Final = "}],;"


class HermesParser(ObjectCallParser):
    """Reads calls between marks; a block may hold several, and may lack its closing mark."""

    name = "hermes"
    special_literals = (_OPEN, _CLOSE)
    instruction = (
        "To call a function, answer with "
        '<tool_call>{"name": "...", "arguments": {...}}</tool_call>, once for each call.'
    )
    markers: ClassVar[tuple[str, ...]] = (_OPEN, _CLOSE)
    bare = False

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
        block = grammar.rule("block", f"{opening} {LINE_BREAK} {call} {LINE_BREAK} {closing}")
        return grammar.build(block, separator=LINE_BREAK, parallel=parallel)

    def _start(self, text: str, position: int) -> int:
        return self._words(text, position)

    def _words(self, text: str, position: int) -> int:
        at, marker = self._until(text, position, (_OPEN,))
        if marker is None:
            return at
        self._begin_call()
        return at + len(marker)

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
            self._state = self._words
        return position
