"""One sequence of a chat read as it comes: what is thought, what is said, what is called."""

import secrets
from dataclasses import dataclass, field
from typing import Final

import msgspec

from backplane_server.dialects.chat_types import AnsweredCall, AnsweredFunction
from backplane_server.text.choice_decoder import Finish
from backplane_server.text.reasoning import ReasoningFamily
from backplane_server.tools.plan import ToolPlan
from backplane_server.tools.reading import AnswerDelta, AnswerReader

_ID_BYTES: Final = 12


@dataclass(frozen=True, kw_only=True)
class ReadingPlan:
    """How the answers to one prompt are read.

    Attributes:
        beginning: what the answers follow; its end may have opened the thinking.
        tools: None where none take part.
        reasoning: None where thoughts are not told apart.
    """

    beginning: str
    tools: ToolPlan | None
    reasoning: ReasoningFamily | None

    @property
    def plain(self) -> bool:
        """Whether the text is the content, as it stands."""
        return self.tools is None and self.reasoning is None

    def reader(self) -> "ChoiceReader":
        """A reader for one sequence."""
        return ChoiceReader(
            AnswerReader(
                None if self.reasoning is None else self.reasoning.splitter(self.beginning),
                None if self.tools is None else self.tools.parser(),
                parallel=self.tools is None or self.tools.parallel,
                enforced=self.tools is not None and self.tools.required,
            )
        )


def new_call_id() -> str:
    """An id for a call, as OpenAI's look."""
    return f"call_{secrets.token_hex(_ID_BYTES)}"


@dataclass(slots=True)
class _Call:
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])


class ChoiceReader:
    """Reads one sequence token by token and keeps what it turned out to be.

    Attributes:
        num_calls: calls told of so far.
    """

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader
        self._num_before_answer = 0
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[_Call] = []

    def push(self, text: str) -> AnswerDelta:
        """Take a token's text."""
        self._num_before_answer += not self._reader.answering
        return self._kept(self._reader.push(text))

    def finish(self, tail: str) -> AnswerDelta:
        """No more tokens come; `tail` is text that none of them completed."""
        first = self._reader.push(tail) if tail else AnswerDelta()
        last = self._reader.finish()
        return self._kept(
            AnswerDelta(
                first.reasoning + last.reasoning,
                first.content + last.content,
                first.calls + last.calls,
            )
        )

    @property
    def num_calls(self) -> int:
        """Calls told of so far."""
        return self._reader.num_calls

    @property
    def num_reasoning_tokens(self) -> int:
        """Tokens up to the end of the thinking, its marks included; 0 if nothing was thought."""
        return self._num_before_answer if self._reasoning else 0

    @property
    def reasoning(self) -> str:
        """What was thought."""
        return "".join(self._reasoning)

    @property
    def content(self) -> str:
        """What was said."""
        return "".join(self._content)

    def calls(self) -> list[AnsweredCall]:
        """What was called, with fresh ids."""
        return [
            AnsweredCall(
                id=new_call_id(),
                function=AnsweredFunction(name=call.name, arguments="".join(call.arguments)),
            )
            for call in self._calls
        ]

    def is_call(self, finish: Finish) -> bool:
        """Whether the answer ended because it is for the client to call: its calls are whole.

        A call can be cut off by a stop string, or stop being JSON in its midst.
        """
        if not self._calls or finish is Finish.LENGTH:
            return False
        return all(_is_json("".join(call.arguments)) for call in self._calls)

    def _kept(self, delta: AnswerDelta) -> AnswerDelta:
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        if delta.content:
            self._content.append(delta.content)
        for news in delta.calls:
            if news.index == len(self._calls):
                self._calls.append(_Call())
            call = self._calls[news.index]
            call.name = news.name or call.name
            call.arguments.append(news.arguments)
        return delta


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True
