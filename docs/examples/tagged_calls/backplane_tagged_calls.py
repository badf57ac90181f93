# ruff: noqa: INP001 -- a plugin may be a lone module
"""A family of tool calls in one module: <function=get_weather>{"city": "Oslo"}</function>.

Llama 3.1 writes calls to functions of one's own like this where its prompt says so.
"""

import json
from collections.abc import Mapping, Sequence

import msgspec
from backplane_core.hookspecs import RegisterToolParser, hookimpl
from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ParsedText, ToolCallDelta, ToolFunction, ToolParser

_OPEN = "<function="
_CLOSE = "</function>"


class TaggedCallParser(ToolParser):
    """Tells of a call when it is whole: simple, at the price of arguments that do not stream."""

    name = "tagged"
    instruction = (
        'To call a function, answer with <function=NAME>{"parameter": "value"}</function>.'
    )

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._text = ""  # not yet told of: perhaps the beginning of a mark, or all of a call
        self._searched = 0  # up to where it was searched for a closing mark
        self._num_calls = 0

    @classmethod
    def matches(cls, template: str) -> bool:
        """Whether a chat template is one of this family's."""
        return _OPEN in template and _CLOSE in template

    def push(self, text: str) -> ParsedText:
        """Take the next piece: words are shown at once, a call when its closing mark is there."""
        self._text += text
        content: list[str] = []
        calls: list[ToolCallDelta] = []
        while self._text:
            if not self._text.startswith(_OPEN):
                words = self._words()
                if not words:
                    break
                content.append(words)
                continue
            end = self._text.find(_CLOSE, self._searched)
            if end < 0:
                # Looked at once, so that a long call takes time linear in its length.
                self._searched = max(0, len(self._text) - len(_CLOSE))
                break
            inner = self._text[len(_OPEN) : end]
            self._text, self._searched = self._text[end + len(_CLOSE) :], 0
            call = self._call(inner)
            if call is None:
                content.append(inner)  # it only looked like a call; its marks are not shown
            else:
                calls.append(call)
        return ParsedText(content="".join(content), calls=tuple(calls))

    def finish(self) -> ParsedText:
        """What never became a call is content."""
        rest, self._text = self._text, ""
        return ParsedText(content=rest.removeprefix(_OPEN))

    def _words(self) -> str:
        """Take the text before the next mark, or before what may turn out to be one."""
        end = self._text.find(_OPEN)
        if end < 0:
            sizes = range(min(len(_OPEN) - 1, len(self._text)), 0, -1)
            held = next((size for size in sizes if _OPEN.startswith(self._text[-size:])), 0)
            end = len(self._text) - held
        words, self._text = self._text[:end], self._text[end:]
        return words

    def _call(self, inner: str) -> ToolCallDelta | None:
        name, _, arguments = inner.partition(">")
        if name not in self.functions:
            return None
        try:
            msgspec.json.decode(arguments, type=dict)
        except (msgspec.DecodeError, RecursionError):
            return None
        self._num_calls += 1
        return ToolCallDelta(index=self._num_calls - 1, name=name, arguments=arguments)

    @classmethod
    def grammar(
        cls,
        functions: Sequence[ToolFunction],
        *,
        parallel: bool,
        special_tokens: Mapping[str, int],  # noqa: ARG003 -- these marks are text everywhere
    ) -> Grammar:
        """One call, or several: llguidance's Lark, with JSON schemas in it."""
        rules = [
            f'call_{number}: "<function={function.name}>" '
            f'%json {json.dumps({**function.parameters, "type": "object"})} "</function>"'
            for number, function in enumerate(functions)
        ]
        call = " | ".join(f"call_{number}" for number in range(len(functions)))
        start = "start: call" + ("{1,16}" if parallel else "")
        return Grammar(kind="lark", source="\n".join([start, f"call: {call}", *rules]))


@hookimpl
def backplane_register_tool_parsers(register: RegisterToolParser) -> None:
    """What Backplane calls at start-up."""
    register(TaggedCallParser)
