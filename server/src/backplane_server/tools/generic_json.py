"""Any model that was told to answer with JSON: one call or an array of them, fenced or not."""

from collections.abc import Mapping, Sequence
from typing import Final

from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction

from backplane_server.tools.lark import CallGrammar, quoted
from backplane_server.tools.object_calls import ArrayCallParser
from backplane_server.tools.streaming import skip_space

_FENCE: Final = "```"
_JSON_FENCE: Final = "```json"


class JsonParser(ArrayCallParser):
    """Reads calls at the beginning of an answer, and in a ```json fence anywhere.

    There are no marks that only calls have, so whatever is not exactly a call to one of the
    functions, arguments and all, is content as it stands.
    """

    name = "json"
    instruction = (
        "To call functions, answer with JSON and nothing else: "
        '[{"name": "...", "arguments": {...}}], one object for each call.'
    )
    bare = True

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._fenced = False

    @classmethod
    def matches(cls, template: str) -> bool:  # noqa: ARG003 -- no template is this family's
        """Never: it is taken where no other family's template is at hand."""
        return False

    @classmethod
    def grammar(
        cls,
        functions: Sequence[ToolFunction],
        *,
        parallel: bool,
        special_tokens: Mapping[str, int],
    ) -> Grammar:
        """One call as an object, or several as an array."""
        grammar = CallGrammar(special_tokens)
        call = grammar.json_calls(functions, arguments="arguments")
        if not parallel:
            return grammar.build(call, parallel=False)
        return grammar.build(
            call, parallel=True, before=quoted("["), separator=quoted(", "), after=quoted("]")
        )

    def _start(self, text: str, position: int) -> int:
        """At the beginning: white space, and then a call, or words."""
        after = skip_space(text, position)
        self._out.content(text[position:after])
        if after < len(text):
            self._state = self._fence if text[after] == "`" else self._before_call
        return after

    def _words(self, text: str, position: int) -> int:
        """Content, until a fence opens."""
        at, marker = self._until(text, position, (_JSON_FENCE,))
        if marker is not None:
            self._state = self._fence
        return at

    def _fence(self, text: str, position: int) -> int:
        """An opening fence with its language; wait while it may become longer."""
        rest = text[position : position + len(_JSON_FENCE)]
        if rest == _JSON_FENCE or not _JSON_FENCE.startswith(rest):
            fence = _JSON_FENCE if rest == _JSON_FENCE else _FENCE
            if rest.startswith(fence):
                self._hold(fence)
                self._fenced = True
                position += len(fence)
            self._state = self._before_call
        return position

    def _before_call(self, text: str, position: int) -> int:
        """A call must follow, or an array of them."""
        after = skip_space(text, position)
        self._hold(text[position:after])
        if after == len(text):
            return after
        if text[after] == "[" and not self._in_array:
            self._in_array = True
            self._hold("[")
            return after + 1
        if text[after] == "{":
            self._begin_call()
        else:
            self._no_call("")
        return after

    def _leave(self) -> None:
        super()._leave()
        self._fenced = False

    def _after_calls(self, text: str, position: int) -> int:
        """The fence's end is no content."""
        if self._fenced and _FENCE.startswith(text[position : position + len(_FENCE)]):
            if len(text) - position < len(_FENCE):
                return position
            position += len(_FENCE)
        self._leave()
        return position

    def _end(self, rest: str) -> None:
        if self._held and self._state != self._in_call:
            self._no_call(rest)
        else:
            super()._end(rest)
