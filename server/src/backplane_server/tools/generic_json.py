"""Any model that was told to answer with JSON: one call or an array of them, fenced or not."""

from collections.abc import Mapping, Sequence

from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction

from backplane_server.tools.call_object import CallObject, Progress
from backplane_server.tools.lark import CallGrammar, quoted
from backplane_server.tools.streaming import StreamingParser, skip_space

_FENCE = "```"
_FENCES = ("```json", "```tool_code", "```")


class JsonParser(StreamingParser):
    """Reads calls at the beginning of an answer, and in a ```json fence anywhere.

    There are no marks that only calls have, so whatever is not exactly a call to one of the
    functions, arguments and all, is content as it stands.
    """

    name = "json"

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._call: CallObject | None = None
        self._held: list[str] = []  # a fence and a bracket, until a call follows
        self._fenced = False
        self._array = False

    @classmethod
    def matches(cls, template: str) -> bool:  # noqa: ARG003 -- it is what is left where no family matches
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
        """At the beginning: white space, a fence, a bracket, or else words."""
        after = skip_space(text, position)
        self._out.content(text[position:after])
        if after < len(text):
            self._state = self._before_call
        return after

    def _words(self, text: str, position: int) -> int:
        """Content, until a fence opens."""
        at, marker = self._until(text, position, _FENCES[:1])
        if marker is not None:
            self._state = self._before_call
        return at

    def _before_call(self, text: str, position: int) -> int:
        """A fence or an array may begin here, and a call must follow them."""
        if not self._held and text.startswith(_FENCE[: len(text) - position], position):
            return self._fence(text, position)
        after = skip_space(text, position) if self._held else position
        self._hold(text[position:after])
        if after == len(text):
            return after
        if text[after] == "[" and not self._array:
            self._array = True
            self._hold("[")
            return after + 1
        if text[after] == "{":
            self._begin_call()
        else:
            self._give_up()
        return after

    def _fence(self, text: str, position: int) -> int:
        """Hold an opening fence with its language; wait while it may become longer."""
        rest = text[position : position + len(_FENCES[1]) + 1]
        fence = next((fence for fence in _FENCES if rest.startswith(fence)), None)
        if fence is None or (
            fence == _FENCE and any(longer.startswith(rest) for longer in _FENCES[:2])
        ):
            return position
        self._fenced = True
        self._hold(fence)
        return position + len(fence)

    def _hold(self, text: str) -> None:
        if text:
            self._held.append(text)

    def _begin_call(self) -> None:
        self._call = CallObject(self.functions, self._out, bare=True)
        self._state = self._in_call

    def _give_up(self, text: str = "") -> None:
        """It was no call: all that was held is content."""
        self._out.content("".join(self._held) + text)
        self._reset()

    def _reset(self) -> None:
        self._held.clear()
        self._fenced = self._array = False
        self._state = self._words

    def _in_call(self, text: str, position: int) -> int:
        assert self._call is not None  # noqa: S101 -- the state is entered with one
        position = self._call.feed(text, position)
        match self._call.progress:
            case Progress.DONE:
                self._held.clear()
                self._state = self._after_call
            case Progress.BROKEN:
                self._state = self._swallow
            case Progress.NOT_A_CALL:
                self._give_up(self._call.raw)
            case Progress.READING:
                pass
        return position

    def _after_call(self, text: str, position: int) -> int:
        """Behind a call: another one in the array, its end, the fence's end, or words."""
        position = skip_space(text, position)
        if position == len(text):
            return position
        if self._array:
            if text[position] == "]":
                self._array = False
                return position + 1
            if text[position] == ",":
                return position + 1
            if text[position] == "{":
                self._begin_call()
                return position
        elif self._fenced and text.startswith(_FENCE[: len(text) - position], position):
            if len(text) - position < len(_FENCE):
                return position
            position += len(_FENCE)
        self._reset()
        return position

    def _swallow(self, text: str, position: int) -> int:  # noqa: ARG002 -- a state's signature
        """The rest of a call that stopped being JSON is neither call nor content."""
        return len(text)

    def _end(self, rest: str) -> None:
        if self._state == self._in_call and self._call is not None:
            self._give_up(self._call.raw)
        elif self._state == self._before_call:
            self._give_up(rest)
        elif self._state == self._words:
            self._out.content(rest)
