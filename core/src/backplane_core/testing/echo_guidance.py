"""Grammars in the echo backend: who waits for one to be compiled, and what echo says under it."""

import time
from collections.abc import Callable, Iterator

from backplane_core.errors import BackplaneError, GenerationError, UnsupportedError
from backplane_core.guidance.engine import GuidanceEngine
from backplane_core.guidance.kinds import supported_kinds
from backplane_core.testing.echo_stream import EchoRequest
from backplane_core.vocabulary import Vocabulary


class EchoGuides:
    """Makes guides; a request is held here until those of its sequences are ready.

    `wake` is called, on any thread, when one is.
    """

    def __init__(self, vocabulary: Vocabulary, wake: Callable[[], None]) -> None:
        self._vocabulary = vocabulary
        self._wake = wake
        self._engine: GuidanceEngine | None = None
        self._held: dict[str, tuple[EchoRequest, float]] = {}

    @property
    def num_held(self) -> int:
        """Requests that wait for their grammar."""
        return len(self._held)

    def hold(self, request: EchoRequest) -> None:
        """Give a request's sequences their guides, and keep it until they are ready.

        Raises:
            UnsupportedError: llguidance is not installed.
        """
        grammar = request.request.grammar
        if grammar is None or grammar.kind not in supported_kinds(self._vocabulary):
            raise UnsupportedError(
                "the echo backend obeys grammars only where llguidance is installed",
                parameter="grammar",
            )
        if self._engine is None:
            self._engine = GuidanceEngine(self._vocabulary)
        for sequence in request.sequences:
            sequence.guide = self._engine.guide(grammar, request.request.stopping, self._wake)
        until_s = time.monotonic() + self._engine.limits.compile_s
        self._held[request.request.request_id] = request, until_s

    def forget(self, request: EchoRequest) -> None:
        """It is gone, wherever it was."""
        self._held.pop(request.request.request_id, None)

    def settled(self) -> Iterator[tuple[EchoRequest, BackplaneError | None]]:
        """Requests that may start now, and those that cannot, with the reason."""
        for request, until_s in list(self._held.values()):
            guides = [one.guide for one in request.sequences if one.guide is not None]
            if all(guide.ready for guide in guides):
                self.forget(request)
                errors = (guide.error for guide in guides)
                yield request, next(filter(None, errors), None)
            elif time.monotonic() > until_s:
                self.forget(request)
                yield request, GenerationError("the grammar took too long to compile")

    def close(self) -> None:
        """Let go of the grammars."""
        if self._engine is not None:
            self._engine.close()
