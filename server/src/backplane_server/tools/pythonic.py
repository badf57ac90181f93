"""Llama 3.2 and 4, Gemma and others told so: [f(a=1, b="x"), g()], as Python would write it.

Nothing is evaluated: literals are read character by character and written as JSON.
"""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction

from backplane_server.text.marker_filter import find_marker
from backplane_server.tools.lark import CallGrammar, quoted
from backplane_server.tools.pythonic_grammar import keyword_arguments
from backplane_server.tools.streaming import StreamingParser, skip_space
from backplane_server.tools.values import PYTHON, ValueReader

_START: Final = "<|python_start|>"
_END: Final = "<|python_end|>"
_NAME: Final = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_-]{0,64})?")
_MAX_NAME: Final = 64
_TAUGHT: Final = re.compile(r"\[\s*\{?\s*(?:func|function|tool)_?name_?1?\s*\}?\(")


class PythonicParser(StreamingParser):
    """Reads a list of calls at the beginning of an answer, or behind <|python_start|>.

    A call is one as soon as its first keyword or its empty brackets are there; a list of anything
    else, and a call with positional arguments, is content as it stands.
    """

    name = "pythonic"
    special_literals = (_START, _END)
    instruction = (
        "To call functions, answer with nothing but a list of calls as Python writes them: "
        '[name(parameter="value", other=1), name()].'
    )
    markers: ClassVar[tuple[str, ...]] = (_START, _END)

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._held: list[str] = []  # of a call, until it is certain
        self._told = False  # of the call that is being read
        self._function = ""
        self._keyword = ""
        self._keywords: set[str] = set()
        self._value = ValueReader(PYTHON)

    @classmethod
    def matches(cls, template: str) -> bool:
        """Whether the template teaches lists of calls: "[func_name1(params_name1=…"."""
        return _TAUGHT.search(template) is not None

    @classmethod
    def grammar(
        cls,
        functions: Sequence[ToolFunction],
        *,
        parallel: bool,
        special_tokens: Mapping[str, int],
    ) -> Grammar:
        """A list; values are JSON, but for True, False and None where nothing else may stand."""
        grammar = CallGrammar(special_tokens)
        call = grammar.alternatives(
            "call",
            [
                f"{quoted(function.name + '(')} "
                f"{keyword_arguments(grammar, f'function_{number}', function)} {quoted(')')}"
                for number, function in enumerate(functions)
            ],
        )
        return grammar.build(
            call,
            parallel=parallel,
            before=quoted("["),
            separator=quoted(", "),
            after=quoted("]"),
        )

    def _start(self, text: str, position: int) -> int:
        """At the beginning: white space, a list, or words."""
        after = skip_space(text, position)
        self._out.content(text[position:after])
        if after == len(text):
            return after
        if text[after] == "[":
            self._held.append("[")
            self._state = self._before_name
            return after + 1
        self._state = self._words
        return after

    def _words(self, text: str, position: int) -> int:
        at, marker = self._until(text, position, (_START,))
        if marker is not None:
            at += len(marker)
            self._state = self._start
        return at

    def _no_call(self) -> None:
        """What was held is content as it stands."""
        self._out.content("".join(self._held))
        self._held.clear()
        self._state = self._words

    # ── a call, up to its brackets ───────────────────────────────────────────────────────

    def _hold_space(self, text: str, position: int) -> int:
        after = skip_space(text, position)
        if self._held:
            self._held.append(text[position:after])
        return after

    def _before_name(self, text: str, position: int) -> int:
        position = self._hold_space(text, position)
        if position == len(text):
            return position
        if text[position] == "]" and not self._held:  # behind a comma
            self._state = self._words
            return position + 1
        end = self._name_end(text, position)
        if end is None:
            return position
        self._function = text[position:end]
        if self._function not in self.functions:
            self._no_call()
            return position
        self._held.append(self._function)
        self._state = self._before_bracket
        return end

    def _name_end(self, text: str, position: int) -> int | None:
        """Where a name ends; None while it may go on in the next piece."""
        end = _NAME.match(text, position).end()  # pyright: ignore[reportOptionalMemberAccess] -- it matches nothing, too
        return None if end == len(text) and end - position <= _MAX_NAME else end

    def _before_bracket(self, text: str, position: int) -> int:
        position = self._hold_space(text, position)
        if position == len(text):
            return position
        if text[position] != "(":
            self._no_call()
            return position
        self._held.append("(")
        self._keywords = set()
        self._state = self._before_keyword
        return position + 1

    # ── its arguments ────────────────────────────────────────────────────────────────────

    def _before_keyword(self, text: str, position: int) -> int:
        position = self._hold_space(text, position)
        if position == len(text):
            return position
        if text[position] == ")":
            return self._close(position)
        end = self._name_end(text, position)
        if end is None:
            return position
        self._keyword = text[position:end]
        if not self._keyword.isidentifier() or self._keyword in self._keywords:
            self._fail()
            return position
        if self._held:
            self._held.append(self._keyword)
        self._state = self._before_equals
        return end

    def _before_equals(self, text: str, position: int) -> int:
        position = self._hold_space(text, position)
        if position == len(text):
            return position
        if text[position] != "=":
            self._fail()
            return position
        if not self._told:
            self._tell()
        lead = ", " if self._keywords else "{"
        self._out.arguments(f'{lead}"{self._keyword}": ')
        self._keywords.add(self._keyword)
        self._state = self._before_value
        return position + 1

    def _tell(self) -> None:
        self._held.clear()
        self._told = True
        self._out.call(self._function)

    def _fail(self) -> None:
        """It is no call, or stops being one after it was told of."""
        if self._told:
            self._state = self._swallow
        else:
            self._no_call()

    def _before_value(self, text: str, position: int) -> int:
        position = skip_space(text, position)
        if position < len(text):
            self._value = ValueReader(PYTHON)
            self._state = self._in_value
        return position

    def _in_value(self, text: str, position: int) -> int:
        position = self._value.feed(text, position)
        self._out.arguments(self._value.take())
        if self._value.done:
            self._state = self._after_value
        elif self._value.failed:
            self._state = self._swallow
        return position

    def _after_value(self, text: str, position: int) -> int:
        position = skip_space(text, position)
        if position == len(text):
            return position
        if text[position] == ")":
            return self._close(position)
        self._state = self._before_keyword if text[position] == "," else self._swallow
        return position + 1

    def _close(self, position: int) -> int:
        if not self._told:
            self._tell()
            self._out.arguments("{")
        self._out.arguments("}")
        self._told = False
        self._state = self._after_call
        return position + 1

    def _after_call(self, text: str, position: int) -> int:
        position = skip_space(text, position)
        if position == len(text):
            return position
        if text[position] == ",":
            self._state = self._before_name
            return position + 1
        self._state = self._words
        return position + 1 if text[position] == "]" else position

    def _swallow(self, text: str, position: int) -> int:
        """The rest of a call that stopped being one is neither call nor content, up to a mark."""
        at, marker = find_marker(text, position, self.markers)
        if marker is not None:
            self._told = False
            self._state = self._words
        return at

    def _end(self, rest: str) -> None:
        if self._told or (self._state == self._before_name and self._is_cut_off_name(rest)):
            return
        if not (self._held and self._out.has_calls):
            self._out.content("".join(self._held) + rest)
