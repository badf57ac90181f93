"""What a parser found, on its way out: content without marks and stray space, deltas of calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from backplane_core.tool_parsers import ParsedText, ToolCallDelta

from backplane_server.text.marker_filter import MarkerFilter


@dataclass(slots=True)
class _Delta:
    index: int
    name: str | None = None
    pieces: list[str] = field(default_factory=list[str])


class ParserOutput:
    """Collects what one answer turned out to be, to be taken piece by piece.

    Marks are left out of the content, and the white space around calls is none of it either:
    an answer of calls alone has no content at all, one without calls has all of its text.
    """

    def __init__(self, markers: Sequence[str]) -> None:
        self._filter = MarkerFilter(markers)
        self._shown: list[str] = []
        self._spaces: list[str] = []
        self._deltas: list[_Delta] = []
        self._num_calls = 0
        self._any_content = False

    @property
    def has_calls(self) -> bool:
        """Whether a call was told of."""
        return self._num_calls > 0

    def content(self, text: str) -> None:
        """Words for the user."""
        self._show(self._filter.push(text))

    def call(self, name: str) -> None:
        """A call begins: of this function."""
        self._spaces.clear()
        self._deltas.append(_Delta(self._num_calls, name))
        self._num_calls += 1

    def arguments(self, text: str) -> None:
        """The next piece of the latest call's arguments."""
        if not text:
            return
        index = self._num_calls - 1
        if not self._deltas or self._deltas[-1].index != index:
            self._deltas.append(_Delta(index))
        self._deltas[-1].pieces.append(text)

    def take(self) -> ParsedText:
        """What is new since the last time."""
        parsed = ParsedText(
            content="".join(self._shown),
            calls=tuple(
                ToolCallDelta(index=delta.index, name=delta.name, arguments="".join(delta.pieces))
                for delta in self._deltas
            ),
        )
        self._shown.clear()
        self._deltas.clear()
        return parsed

    def finish(self) -> None:
        """The answer is over: what was held back is content, or space after a call."""
        self._show(self._filter.finish())
        if not self._num_calls:
            self._shown.extend(self._spaces)
        self._spaces.clear()

    def _show(self, text: str) -> None:
        """Show text up to its last word; the space after that may yet be a call's."""
        words = text.rstrip()
        if words:
            if self._any_content or not self._num_calls:
                self._shown.extend(self._spaces)
            else:
                words = words.lstrip()
            self._spaces.clear()
            self._shown.append(words)
            self._any_content = True
        if len(words) < len(text):
            self._spaces.append(text[len(text.rstrip()) :])
