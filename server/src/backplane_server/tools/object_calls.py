"""Bases of the families that write a call as one JSON object with its name in it."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from backplane_core.tool_parsers import ToolFunction

from backplane_server.text.marker_filter import find_marker
from backplane_server.tools.call_object import CallObject, Progress
from backplane_server.tools.streaming import StreamingParser, skip_space


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


class ArrayCallParser(ObjectCallParser):
    """Such a family that may write several calls as one array."""

    def __init__(self, functions: Sequence[ToolFunction]) -> None:
        super().__init__(functions)
        self._in_array = False
        self._held: list[str] = []  # what stands before a call, until it is one

    def _hold(self, text: str) -> None:
        if text:
            self._held.append(text)

    def _leave(self) -> None:
        """The calls are over, or there were none: words follow."""
        self._held.clear()
        self._in_array = False
        self._state = self._words

    def _no_call(self, text: str) -> None:
        held = "".join(self._held)
        self._leave()
        super()._no_call(held + text)

    def _after_call(self, text: str, position: int) -> int:
        """Behind a call: another one in the array, its end, or words."""
        self._held.clear()
        position = skip_space(text, position)
        if position == len(text):
            return position
        if self._in_array and text[position] in ",]":
            self._in_array = text[position] == ","
            return position + 1
        if self._in_array and text[position] == "{":
            self._begin_call()
            return position
        return self._after_calls(text, position)

    def _after_calls(self, text: str, position: int) -> int:  # noqa: ARG002 -- families look at it
        """Behind the last call, at a character that is no white space."""
        self._leave()
        return position
