"""Finds stop strings in text that arrives in pieces, however the pieces are cut.

Knows nothing of tokens: it maps text in to text that may be shown.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StopStep:
    """What became certain: `num_visible` characters of all text so far may be shown."""

    num_visible: int
    matched: bool


class StopMatcher:
    """Matches stop strings across pieces.

    The match that is complete first wins, and of several that are complete with the same
    character, the longest. Whatever the cut, the answer is the one for the whole text.

    Args:
        stops: non-empty strings.
        keep: whether the stop string itself stays visible (TGI's way) or goes (OpenAI's way).
            Text that may turn out to be the beginning of one is held back only where it goes.
    """

    def __init__(self, stops: tuple[str, ...], *, keep: bool) -> None:
        self._stops = stops
        self._keep = keep
        # Text that stays is never held back, so nobody asks for its prefixes.
        self._prefixes = () if keep else tuple(_Prefix(stop) for stop in stops)
        self._longest = max(map(len, stops), default=0)
        self._tail = ""
        self._num_seen = 0
        self.matched = False

    def push(self, text: str) -> StopStep:
        """Take the next piece.

        Raises:
            RuntimeError: a stop string was matched already.
        """
        if self.matched:
            raise RuntimeError("text after a stop string")
        window_start = self._num_seen - len(self._tail)
        self._num_seen += len(text)
        if not self._stops:
            return StopStep(self._num_seen, matched=False)
        window = self._tail + text
        if span := self._first_match(window):
            self.matched = True
            return StopStep(window_start + span[1 if self._keep else 0], matched=True)
        # Any match to come ends in text to come, so it begins in the last `longest - 1`.
        self._tail = window[-(self._longest - 1) :] if self._longest > 1 else ""
        num_held = max((prefix.advance(text) for prefix in self._prefixes), default=0)
        return StopStep(self._num_seen - num_held, matched=False)

    def finish(self) -> StopStep:
        """No more text comes: what was held back may be shown."""
        return StopStep(self._num_seen, matched=False)

    def _first_match(self, window: str) -> tuple[int, int] | None:
        spans = [
            (start, start + len(stop)) for stop in self._stops if (start := window.find(stop)) >= 0
        ]
        return min(spans, key=lambda span: (span[1], span[0]), default=None)


class _Prefix:
    """How much of one stop string the text so far may be the beginning of.

    Knuth, Morris and Pratt's automaton: a character costs the same on average, however long the
    stop string is and however much the text is like it.
    """

    def __init__(self, stop: str) -> None:
        self._stop: Final = stop
        self._shorter: Final = _borders(stop)
        self._length = 0

    def advance(self, text: str) -> int:
        """Take text in which the stop string does not end; the length of the beginning."""
        stop, shorter, length = self._stop, self._shorter, self._length
        if not length and stop[0] not in text:
            return 0
        for character in text:
            while length and stop[length] != character:
                length = shorter[length - 1]
            length += stop[length] == character
        self._length = length
        return length


def _borders(stop: str) -> list[int]:
    """For each beginning of a text, how long the longest shorter one is that also ends it."""
    borders = [0] * len(stop)
    length = 0
    for position in range(1, len(stop)):
        while length and stop[position] != stop[length]:
            length = borders[length - 1]
        length += stop[position] == stop[length]
        borders[position] = length
    return borders
