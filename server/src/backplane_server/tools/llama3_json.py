"""Llama 3.1 to 4: {"name": …, "parameters": {…}}, several with ; between, perhaps behind a tag."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction

from backplane_server.tools.lark import CallGrammar, quoted
from backplane_server.tools.object_calls import ObjectCallParser
from backplane_server.tools.streaming import skip_space

_TAGS: Final = ("<|python_tag|>", "<|python_start|>")
_END: Final = "<|python_end|>"


class Llama3JsonParser(ObjectCallParser):
    """Reads calls at the beginning of an answer, behind other calls, and behind the tag.

    An object that is not exactly a call to one of the functions is content as it stands.
    """

    name = "llama3_json"
    special_literals = (*_TAGS, _END)
    instruction = (
        "To call a function, answer with JSON and nothing else: "
        '{"name": "...", "parameters": {...}}. Separate several calls by "; ".'
    )
    markers: ClassVar[tuple[str, ...]] = (*_TAGS, _END)
    bare = True

    @classmethod
    def matches(cls, template: str) -> bool:
        """Whether the template is Llama's, and asks for parameters in JSON."""
        headers = "<|start_header_id|>" in template or "<|header_start|>" in template
        return headers and '"parameters"' in template

    @classmethod
    def grammar(
        cls,
        functions: Sequence[ToolFunction],
        *,
        parallel: bool,
        special_tokens: Mapping[str, int],
    ) -> Grammar:
        """Objects alone: the tag is for Llama's own built-in tools."""
        grammar = CallGrammar(special_tokens)
        call = grammar.json_calls(functions, arguments="parameters")
        return grammar.build(call, separator=quoted("; "), parallel=parallel)

    def _start(self, text: str, position: int) -> int:
        """At the beginning: white space, a call, or words."""
        after = skip_space(text, position)
        self._out.content(text[position:after])
        if after < len(text):
            if text[after] == "{":
                self._begin_call()
            else:
                self._state = self._words
        return after

    def _words(self, text: str, position: int) -> int:
        at, marker = self._until(text, position, _TAGS)
        if marker is not None:
            at += len(marker)
            self._state = self._start
        return at

    def _after_call(self, text: str, position: int) -> int:
        position = skip_space(text, position)
        if position < len(text):
            if text[position] in ";,":
                return position + 1
            self._state = self._start
        return position
