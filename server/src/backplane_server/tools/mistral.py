"""Mistral: [TOOL_CALLS][{JSON}, …], and since 2025 [TOOL_CALLS]name[ARGS]{JSON}."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction

from backplane_server.text.marker_filter import find_marker
from backplane_server.tools.arguments_schema import arguments_schema
from backplane_server.tools.lark import CallGrammar, embedded, quoted
from backplane_server.tools.object_calls import ArrayCallParser
from backplane_server.tools.streaming import skip_space
from backplane_server.tools.values import ValueReader

_CALLS: Final = "[TOOL_CALLS]"
_ID: Final = "[CALL_ID]"
_ARGS: Final = "[ARGS]"
_WORD: Final = re.compile(r"[A-Za-z0-9_-]{0,65}")
_MAX_WORD: Final = 64


class MistralParser(ArrayCallParser):
    """Reads both forms, whichever the model writes; each [TOOL_CALLS] begins anew."""

    name = "mistral"
    special_literals = (_CALLS, _ID, _ARGS)
    instruction = (
        "To call functions, answer with nothing but "
        '[TOOL_CALLS][{"name": "...", "arguments": {...}}], one object for each call.'
    )
    markers: ClassVar[tuple[str, ...]] = (_CALLS, _ID, _ARGS)
    bare = False

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._name = ""
        self._arguments = ValueReader()

    @classmethod
    def matches(cls, template: str) -> bool:
        """Whether the template writes the mark."""
        return _CALLS in template

    @classmethod
    def grammar(
        cls,
        functions: Sequence[ToolFunction],
        *,
        parallel: bool,
        special_tokens: Mapping[str, int],
    ) -> Grammar:
        """The newer form for vocabularies that have [ARGS], the array for others."""
        grammar = CallGrammar(special_tokens)
        mark = grammar.mark(_CALLS)
        if _ARGS not in special_tokens:
            call = grammar.json_calls(functions, arguments="arguments")
            return grammar.build(
                call,
                parallel=parallel,
                before=f"{mark} {quoted('[')}",
                separator=quoted(", "),
                after=quoted("]"),
            )
        call = grammar.alternatives(
            "call",
            [
                f"{mark} {quoted(function.name)} {grammar.mark(_ARGS)} "
                f"{embedded(arguments_schema(function))}"
                for function in functions
            ],
        )
        return grammar.build(call, parallel=parallel)

    def _start(self, text: str, position: int) -> int:
        return self._words(text, position)

    def _words(self, text: str, position: int) -> int:
        at, marker = self._until(text, position, (_CALLS,))
        if marker is None:
            return at
        self._state = self._after_mark
        return at + len(marker)

    def _after_mark(self, text: str, position: int) -> int:
        """An array, an object or a name."""
        position = skip_space(text, position)
        if position == len(text):
            return position
        if text[position] == "[":
            self._hold("[")
            self._in_array = True
            self._state = self._first_of_array
            return position + 1
        if text[position] == "{":
            self._begin_call()
        else:
            self._state = self._function_name
        return position

    def _first_of_array(self, text: str, position: int) -> int:
        after = skip_space(text, position)
        self._hold(text[position:after])
        if after < len(text):
            if text[after] == "{":
                self._begin_call()
            else:
                self._no_call("")
        return after

    # ── the newer form ───────────────────────────────────────────────────────────────────

    def _function_name(self, text: str, position: int) -> int:
        end = self._word_end(text, position)
        if end is None:
            return position
        self._name = text[position:end]
        if self._name not in self.functions:
            self._state = self._words
            return position
        self._hold(self._name)
        self._state = self._behind_name
        return end

    def _word_end(self, text: str, position: int) -> int | None:
        """Where a word ends; None while it may go on in the next piece."""
        end = _WORD.match(text, position).end()  # pyright: ignore[reportOptionalMemberAccess] -- it matches nothing, too
        return None if end == len(text) and end - position <= _MAX_WORD else end

    def _behind_name(self, text: str, position: int) -> int:
        """An id, perhaps, and the arguments; their mark may be missing."""
        after = skip_space(text, position)
        self._hold(text[position:after])
        if after == len(text):
            return after
        if text[after] == "{":
            self._held.clear()
            self._out.call(self._name)
            self._arguments = ValueReader()
            self._state = self._in_arguments
            return after
        for mark in (_ID, _ARGS):
            if text.startswith(mark, after):
                self._hold(mark)
                self._state = self._call_id if mark == _ID else self._behind_name
                return after + len(mark)
            if mark.startswith(text[after:]):
                return after
        self._no_call("")
        return after

    def _call_id(self, text: str, position: int) -> int:
        end = self._word_end(text, position)
        if end is None:
            return position
        self._hold(text[position:end])
        self._state = self._behind_name
        return end

    def _in_arguments(self, text: str, position: int) -> int:
        position = self._arguments.feed(text, position)
        self._out.arguments(self._arguments.take())
        if self._arguments.done:
            self._state = self._after_call
        elif self._arguments.failed:
            self._state = self._swallow
        return position

    def _swallow(self, text: str, position: int) -> int:
        at, marker = find_marker(text, position, (_CALLS,))
        if marker is not None:
            self._in_array = False
            self._state = self._words
        return at

    def _end(self, rest: str) -> None:
        if self._state == self._function_name and self._is_cut_off_name(rest):
            return
        if self._held and self._state != self._in_call:
            if not self._out.has_calls:
                self._no_call(rest)
        else:
            super()._end(rest)
