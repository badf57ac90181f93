"""What the built-in parsers share: text is read by one state after another, each once.

A state reads on from a position and says where it stopped. One that needs more text to decide
leaves a bounded rest unread, so an answer is read in time linear in its length.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from backplane_core.tool_parsers import ParsedText, ToolFunction, ToolParser

from backplane_server.text.marker_filter import find_marker
from backplane_server.tools.output import ParserOutput

SPACE: Final = re.compile(r"\s*")
State = Callable[[str, int], int]


class StreamingParser(ToolParser):
    """Base of parsers that are state machines over the text.

    Attributes:
        markers: the family's marks; they are never content, whatever stands around them.
    """

    markers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._out = ParserOutput(self.markers)
        self._unread = ""
        self._ended = False
        self._state: State = self._start

    @abstractmethod
    def _start(self, text: str, position: int) -> int:
        """The first state."""

    @abstractmethod
    def _end(self, rest: str) -> None:
        """The answer ended in the present state, with a rest it has not read."""

    def push(self, text: str) -> ParsedText:
        """Take the next piece of the answer."""
        text = self._unread + text
        position = 0
        while position < len(text):
            state = self._state
            read = state(text, position)
            if read == position and state == self._state:
                break
            position = read
        self._unread = text[position:]
        return self._out.take()

    def finish(self) -> ParsedText:
        """No more text comes: what was held back is a call, or content after all."""
        self._end(self._unread)
        self._unread = ""
        self._out.finish()
        return self._out.take()

    def _is_cut_off_name(self, text: str) -> bool:
        """Whether the answer ended in the name of a call that follows others."""
        return self._out.has_calls and any(name.startswith(text) for name in self.functions)

    def _until(self, text: str, position: int, markers: Sequence[str]) -> tuple[int, str | None]:
        """Show content up to a mark; where that is and which, or where one may begin."""
        at, marker = find_marker(text, position, markers)
        self._out.content(text[position:at])
        return at, marker


def skip_space(text: str, position: int) -> int:
    """The position of the first character that is not white space."""
    return SPACE.match(text, position).end()  # pyright: ignore[reportOptionalMemberAccess] -- it matches nothing, too
