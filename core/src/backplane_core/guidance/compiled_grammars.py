"""`CompiledGrammars`: those used last, within a bound on their bytes. Least recently used go."""

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.messages import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher

# Measured: small schemas take some 110 kB, one of 10 000 properties and 320 kB some 130 MB.
_BYTES_EACH: Final = 128 * 1024
_BYTES_PER_SOURCE_BYTE: Final = 512


class CompiledGrammars:
    """Grammars to matchers at their start, which are copied and never advanced. Any thread.

    Futures are kept, so that many requests of one grammar wait for one compilation.
    """

    def __init__(self, limits: GuidanceLimits) -> None:
        self._max_bytes = limits.max_cached_bytes
        self._max_grammars = limits.max_cached_grammars
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str], Future[LLMatcher]] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get_or_reserve(self, grammar: Grammar) -> "tuple[Future[LLMatcher], bool]":
        """The grammar's matcher to come, and whether the caller is the one to make it."""
        key = _key(grammar)
        with self._lock:
            known = self._entries.get(key)
            if known is not None:
                self._entries.move_to_end(key)
                return known, False
            made: Future[LLMatcher] = Future()
            self._entries[key] = made
            self.num_bytes += _num_bytes(key)
            while len(self._entries) > 1 and (
                self.num_bytes > self._max_bytes or len(self._entries) > self._max_grammars
            ):
                oldest, _ = self._entries.popitem(last=False)
                self.num_bytes -= _num_bytes(oldest)
            return made, True

    def forget(self, grammar: Grammar) -> None:
        """Drop a grammar, which could not be compiled."""
        key = _key(grammar)
        with self._lock:
            if self._entries.pop(key, None) is not None:
                self.num_bytes -= _num_bytes(key)


def _key(grammar: Grammar) -> tuple[str, str]:
    return grammar.kind, grammar.source


def _num_bytes(key: tuple[str, str]) -> int:
    return _BYTES_EACH + _BYTES_PER_SOURCE_BYTE * len(key[1])
