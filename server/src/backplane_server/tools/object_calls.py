"""Base of the families that write a call as one JSON object with its name in it."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from backplane_core.tool_parsers import ToolFunction

from backplane_server.text.marker_filter import find_marker
from backplane_server.tools.call_object import CallObject, Progress
from backplane_server.tools.streaming import StreamingParser


class ObjectCallParser(StreamingParser):
    """A state that reads one object, and what follows from how it ends.

    Attributes:
        bare: nothing but its own form says that an object is a call.
    """

    bare: ClassVar[bool]

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._call = CallObject(self.functions, self._out, bare=self.bare)

    @abstractmethod
    def _words(self, text: str, position: int) -> int:
        """The state in which text is content, until a mark."""

    @abstractmethod
    def _after_call(self, text: str, position: int) -> int:
        """The state behind a complete call."""

    def _begin_call(self) -> None:
        """The next character is the opening brace."""
        self._call = CallObject(self.functions, self._out, bare=self.bare)
        self._state = self._in_call

    def _no_call(self, text: str) -> None:
        """What was read of the object was none; it is content as it stands."""
        self._out.content(text)
        self._state = self._words

    def _in_call(self, text: str, position: int) -> int:
        position = self._call.feed(text, position)
        match self._call.progress:
            case Progress.DONE:
                self._state = self._after_call
            case Progress.BROKEN:
                self._state = self._swallow
            case Progress.NOT_A_CALL:
                self._no_call(self._call.raw)
            case Progress.READING:
                pass
        return position

    def _swallow(self, text: str, position: int) -> int:
        """The rest of a call that stopped being JSON is neither call nor content, up to a mark."""
        at, marker = find_marker(text, position, self.markers)
        if marker is not None:
            self._state = self._words
        return at

    def _end(self, rest: str) -> None:
        """An unfinished call is content where it is all there is; behind another it is noise."""
        if self._state == self._in_call:
            if not self._out.has_calls:
                self._no_call(self._call.raw)
        elif self._state != self._swallow:
            self._out.content(rest)
