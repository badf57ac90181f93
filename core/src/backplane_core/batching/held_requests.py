"""`HeldRequests`: accepted requests whose grammar is still being made ready, beside the engine."""

from backplane_core.batching.request_group import RequestGroup
from backplane_core.batching.sequence import SequenceState
from backplane_core.errors import BackplaneError, GenerationError


class HeldRequests:
    """By id, with the time (monotonic seconds) after which each has waited for too long."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[RequestGroup, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, group: RequestGroup, until_s: float) -> None:
        """Hold a request whose sequences have their guides."""
        group.held = True
        self._entries[group.request.request_id] = (group, until_s)

    def discard(self, request_id: str) -> None:
        """Forget a request, if it is here."""
        self._entries.pop(request_id, None)

    def settled(self, now_s: float) -> list[tuple[RequestGroup, BackplaneError | None]]:
        """Take out those that may start, and those that cannot, with the reason."""
        settled: list[tuple[RequestGroup, BackplaneError | None]] = []
        for group, until_s in list(self._entries.values()):
            guides = [
                sequence.guide
                for sequence in group.sequences
                if sequence.guide is not None and sequence.state is not SequenceState.FINISHED
            ]
            if all(guide.ready for guide in guides):
                errors = (guide.error for guide in guides)
                settled.append((group, next(filter(None, errors), None)))
            elif now_s > until_s:
                late = GenerationError(
                    "the grammar took too long to compile",
                    remedy="try again, or use a simpler grammar",
                )
                settled.append((group, late))
        for group, _ in settled:
            self.discard(group.request.request_id)
        return settled
