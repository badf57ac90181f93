"""Leaves marks out of text that arrives in pieces, and finds where one begins.

Knows nothing of what a mark means.
"""

from collections.abc import Sequence


def find_marker(text: str, start: int, markers: Sequence[str]) -> tuple[int, str | None]:
    """Where the first of `markers` begins in `text[start:]`, and which it is.

    Without one: where an unfinished one begins that the next piece may complete, or the end.
    """
    markers = [marker for marker in markers if marker[0] in text]
    if not markers:
        return len(text), None
    found = min(
        ((at, marker) for marker in markers if (at := text.find(marker, start)) >= 0),
        key=lambda pair: (pair[0], -len(pair[1])),
        default=None,
    )
    if found is not None:
        return found
    begins = (_unfinished(text, start, marker) for marker in markers)
    return min((begin for begin in begins if begin is not None), default=len(text)), None


def _unfinished(text: str, start: int, marker: str) -> int | None:
    """Where `text` ends with a beginning of `marker`."""
    begin = text.find(marker[0], max(start, len(text) - len(marker) + 1))
    while begin >= 0:
        if marker.startswith(text[begin:]):
            return begin
        begin = text.find(marker[0], begin + 1)
    return None


class MarkerFilter:
    """Passes text on without the marks in it, in time linear in the text.

    What comes out, joined, holds no mark: not even one that the leaving out of another makes.
    """

    def __init__(self, markers: Sequence[str]) -> None:
        self._markers = tuple(markers)
        self._longest = max(map(len, self._markers), default=0)
        self._first = frozenset(marker[0] for marker in self._markers)
        self._held: list[str] = []

    def push(self, text: str) -> str:
        """What of the text so far cannot be part of a mark any more, as far as it is new."""
        if not self._held and self._first.isdisjoint(text):
            return text
        shown: list[str] = []
        position = 0
        while position < len(text):
            if not self._held:
                begin = self._next_first(text, position)
                shown.append(text[position:begin])
                position = begin
                if position == len(text):
                    break
            self._take(text[position], shown)
            position += 1
        return "".join(shown)

    def finish(self) -> str:
        """No more text comes: what was held back is text."""
        held = "".join(self._held)
        self._held.clear()
        return held

    def _next_first(self, text: str, start: int) -> int:
        return min(
            (at for first in self._first if (at := text.find(first, start)) >= 0),
            default=len(text),
        )

    def _take(self, character: str, shown: list[str]) -> None:
        """Hold a character; drop a mark it completes, let go of all that it makes certain."""
        self._held.append(character)
        tail = "".join(self._held[-self._longest :])
        for marker in self._markers:
            if tail.endswith(marker):
                del self._held[-len(marker) :]
                return
        if not any(
            marker.startswith(tail[-size:])
            for size in range(1, len(tail) + 1)
            for marker in self._markers
        ):
            shown.extend(self._held)
            self._held.clear()
