"""One answer's text, read by both parsers: thinking first, then calls in what is left."""

from dataclasses import dataclass

from backplane_core.tool_parsers import ParsedText, ToolCallDelta, ToolParser

from backplane_server.text.reasoning import ReasoningDelta, ReasoningSplitter


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """What is new in an answer. Empty where the text is still held back."""

    reasoning: str = ""
    content: str = ""
    calls: tuple[ToolCallDelta, ...] = ()


class AnswerReader:
    """Reads one answer, piece by piece. However it is cut, the joined results are the same.

    Args:
        reasoning: splits off the thinking; None where the model does not think.
        parser: finds the calls; None where the request has no tools.
        parallel: whether there may be more than one call. If not, calls after the first are
            left out, as OpenAI promises with `parallel_tool_calls: false`.
        enforced: whether a grammar lets the answer be calls alone. Then whatever is none is the
            beginning of one that was cut off, and no content.

    Attributes:
        num_calls: calls told of so far.
    """

    def __init__(
        self,
        reasoning: ReasoningSplitter | None,
        parser: ToolParser | None,
        *,
        parallel: bool = True,
        enforced: bool = False,
    ) -> None:
        self.num_calls = 0
        self._reasoning = reasoning
        self._parser = parser
        self._parallel = parallel
        self._enforced = enforced

    @property
    def answering(self) -> bool:
        """Whether the thinking is over, or there was none: what follows is the answer."""
        return self._reasoning is None or self._reasoning.answering

    def push(self, text: str) -> AnswerDelta:
        """Take the next piece of the answer's text."""
        if self._reasoning is None:
            return self._delta("", self._parse(text))
        split = self._reasoning.push(text)
        return self._delta(split.reasoning, self._parse(split.content))

    def finish(self) -> AnswerDelta:
        """No more text comes; what was held back."""
        split = ReasoningDelta() if self._reasoning is None else self._reasoning.finish()
        parsed = self._parse(split.content)
        if self._parser is not None:
            rest = self._parser.finish()
            parsed = ParsedText(
                content=parsed.content + rest.content, calls=parsed.calls + rest.calls
            )
        return self._delta(split.reasoning, parsed)

    def _parse(self, text: str) -> ParsedText:
        if self._parser is None or not text:
            return ParsedText(content=text)
        return self._parser.push(text)

    def _delta(self, reasoning: str, parsed: ParsedText) -> AnswerDelta:
        calls = parsed.calls
        if not self._parallel:
            calls = tuple(call for call in calls if call.index == 0)
        if calls:
            self.num_calls = max(self.num_calls, calls[-1].index + 1)
        return AnswerDelta(reasoning, "" if self._enforced else parsed.content, calls)
