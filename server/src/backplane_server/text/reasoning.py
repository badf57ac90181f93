"""Splits what a model thinks before it answers from its answer, as the text streams.

Families differ in their tags and in whether an answer begins inside the thinking.
"""

from dataclasses import dataclass
from typing import Final

from backplane_core.errors import SetupError

from backplane_server.text.marker_filter import MarkerFilter, find_marker


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """What a piece of text was: thinking, answer, or some of both."""

    reasoning: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningFamily:
    """How one family of models marks its thinking.

    Attributes:
        name: what `--reasoning-parser` takes.
        always: every answer begins with thinking, whether or not a tag opens it, unless the
            prompt closed it.
    """

    name: str
    opening: str
    closing: str
    always: bool = False

    @property
    def special_literals(self) -> tuple[str, ...]:
        """The tags: special tokens in some vocabularies, and to be text all the same."""
        return self.opening, self.closing

    def matches(self, template: str) -> bool:
        """Whether a chat template is of a model with these tags."""
        return self.closing in template

    def doubt(self, template: str | None) -> str | None:
        """Why this may be the wrong family for a chat template; None where it is not."""
        if template is None or self.opening in template or self.closing in template:
            return None
        outcome = (
            "an answer that does not end its thoughts by itself has no content"
            if self.always
            else "answers come apart only if the model writes them unasked"
        )
        return f"the chat template has neither {self.opening} nor {self.closing}: {outcome}"

    def begins_inside(self, prompt: str) -> bool:
        """Whether an answer to this prompt begins inside the thinking.

        A template may open it (Qwen3-Thinking, DeepSeek-R1), or open and close it at once
        where thinking is switched off (Qwen3). Only the very end of the prompt counts: a
        conversation may well talk of tags.
        """
        tail = prompt[-256:].rstrip()
        if tail.endswith(self.closing):
            return False
        return self.always or tail.endswith(self.opening)

    def splitter(self, prompt: str) -> "ReasoningSplitter":
        """A splitter for one answer to this prompt."""
        return ReasoningSplitter(self, begins_inside=self.begins_inside(prompt))


FAMILIES: Final = (
    ReasoningFamily(name="deepseek_r1", opening="<think>", closing="</think>", always=True),
    ReasoningFamily(name="qwen3", opening="<think>", closing="</think>"),
    ReasoningFamily(name="mistral", opening="[THINK]", closing="[/THINK]"),
)
# What "auto" tries, in this order; a family with `always` is only taken when it is named, since
# the tags do not tell it from the others.
_AUTO: Final = tuple(family for family in FAMILIES if not family.always)


def choose_reasoning(flag: str | None, template: str | None) -> ReasoningFamily | None:
    """The family that `--reasoning-parser` asks for.

    Args:
        flag: None is none, "auto" is the one whose tags the template has, if any.
        template: the chat template in force.

    Raises:
        SetupError: no family has that name.
    """
    if flag is None:
        return None
    if flag == "auto":
        return next((family for family in _AUTO if family.matches(template or "")), None)
    for family in FAMILIES:
        if family.name == flag:
            return family
    raise SetupError(
        f"no reasoning parser is called {flag}",
        remedy=f"give --reasoning-parser one of: auto, {', '.join(f.name for f in FAMILIES)}",
    )


class ReasoningSplitter:
    """Splits one answer. However it is cut, the joined results are the same.

    Thinking is what comes before the closing tag, at the answer's beginning; white space at its
    ends, and before the answer that follows it, belongs to neither. Tags are never shown.
    """

    def __init__(self, family: ReasoningFamily, *, begins_inside: bool) -> None:
        self._opening = family.opening
        self._closing = family.closing
        self._tags = (family.opening, family.closing)
        self._at = "inside" if begins_inside else "start"
        self._unread = ""
        self._filter = MarkerFilter(self._tags)
        self._spaces: list[str] = []  # until a word follows and shows whose they are
        self._begun = False  # a word was thought
        self._trim = False  # leading space of the answer is the closing tag's

    @property
    def answering(self) -> bool:
        """Whether the thinking is over, or there was none."""
        return self._at == "answer"

    def push(self, text: str) -> ReasoningDelta:
        """Take the next piece of the answer."""
        text = self._unread + text
        self._unread = ""
        reasoning = ""
        if self._at == "start":
            text = self._open(text)
        if self._at == "inside":
            reasoning, text = self._think(text)
        return ReasoningDelta(reasoning, self._answer(text) if self._at == "answer" else "")

    def finish(self) -> ReasoningDelta:
        """The answer is over: what was held back is what it looks like."""
        rest, self._unread = self._unread, ""
        if self._at == "inside":
            rest = self._filter.push(rest) + self._filter.finish()
            return ReasoningDelta(reasoning=self._thought(rest))
        if self._at == "start":
            rest = self._begin_answer(rest)
        return ReasoningDelta(content=self._answer(rest) + self._filter.finish())

    def _open(self, text: str) -> str:
        """Find out whether the answer opens with thinking; what is left to read."""
        words = text.lstrip()
        self._spaces.append(text[: len(text) - len(words)])
        if words.startswith(self._opening):
            self._at = "inside"
            self._spaces.clear()
            return words[len(self._opening) :]
        if self._opening.startswith(words):
            self._unread = words
            return ""
        return self._begin_answer(words)

    def _begin_answer(self, text: str) -> str:
        """It did not open with thinking, so the space before its first word is the answer's."""
        self._at = "answer"
        text = "".join(self._spaces) + text
        self._spaces.clear()
        return text

    def _think(self, text: str) -> tuple[str, str]:
        """Thinking up to the closing tag, and the text after it."""
        at, tag = find_marker(text, 0, (self._closing,))
        reasoning = self._thought(self._filter.push(text[:at]))
        if tag is None:
            self._unread = text[at:]
            return reasoning, ""
        reasoning += self._thought(self._filter.finish())
        self._at = "answer"
        self._trim = True
        return reasoning, text[at + len(tag) :]

    def _thought(self, text: str) -> str:
        """Thinking without the white space at its ends."""
        if not self._begun:
            text = text.lstrip()
        words = text.rstrip()
        shown = ""
        if words:
            shown = "".join(self._spaces) + words
            self._spaces.clear()
            self._begun = True
        self._spaces.append(text[len(words) :])
        return shown

    def _answer(self, text: str) -> str:
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        return self._filter.push(text)
