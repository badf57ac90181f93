"""The generations of one request followed as one: everybody's events in their order, one end."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from backplane_server.services.generation import EndSink, Generation
from backplane_server.text.choice_decoder import ChoiceEvent

GroupSink = Callable[[int, ChoiceEvent], None]


class GenerationGroup:
    """Follow it once, or run it once."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._generations: Final = generations
        self._num_running = len(generations)
        self._held = True
        self._on_end: EndSink | None = None

    def follow(self, sink: GroupSink, on_end: EndSink) -> None:
        """Tell events with their generation's number, then the end once.

        Args:
            sink: takes each event. What it raises is the end.
            on_end: takes the first error that any of them has, or None after the last end.
        """
        self._on_end = on_end
        for number, generation in enumerate(self._generations):
            generation.follow(partial(sink, number), self._one_ended)
        self.resume()

    def hold(self) -> None:
        """Tell nothing until `resume`."""
        self._held = True
        for generation in self._generations:
            generation.hold()

    def resume(self) -> None:
        """Go on telling. Who is told may hold again in its midst."""
        self._held = False
        for generation in self._generations:
            if not self._held:
                generation.resume()

    async def run(self, sink: GroupSink) -> None:
        """Follow to the end; the waiting task is woken once.

        Raises:
            BackplaneError: the first that one of them has.
        """
        over: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        def end(error: Exception | None) -> None:
            if not over.done():  # else nobody waits any more
                over.set_result(error)

        self.follow(sink, end)
        try:
            error = await over
        finally:
            self.hold()
        if error is not None:
            raise error

    def _one_ended(self, error: Exception | None) -> None:
        self._num_running -= 1
        if error is None and self._num_running:
            return
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self.hold()
            on_end(error)
