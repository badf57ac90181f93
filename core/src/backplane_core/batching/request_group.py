"""`RequestGroup`: the sequences of one request, and in which order they may start.

Where prefixes can be shared, the first sequence computes the prompt and the others wait for it,
then take over all of it but its last token, from whose logits each draws its own first token.
"""

from collections import deque

from backplane_core.batching.sequence import Sequence, SequenceState
from backplane_core.messages import Submit


class RequestGroup:
    """One request's sequences. `num_running` of the `num_unfinished` hold memory."""

    def __init__(self, request: Submit, sequences: list[Sequence]) -> None:
        self.request = request
        self.sequences = sequences
        self.num_unfinished = len(sequences)
        self.num_running = 0
        self._leader = sequences[0]
        self._parked = deque(sequences[1:])

    @property
    def num_found_tokens(self) -> int:
        """Prompt tokens that were in the cache before any of the sequences came there."""
        started = (one for one in self.sequences if one.start_s is not None)
        return min((one.num_cached_tokens for one in started), default=0)

    def start(self, *, shares: bool) -> list[Sequence]:
        """The sequences to queue at once."""
        return [self._leader] if shares else [self._leader, *self._unpark()]

    def released(self) -> list[Sequence]:
        """The sequences to queue now.

        All once the leader has computed the prompt; a new leader where it was cancelled before.
        """
        if self._leader.state is SequenceState.DECODE or self._leader.num_output_tokens:
            return self._unpark()
        if self._leader.state is not SequenceState.FINISHED:
            return []
        while self._parked:
            self._leader = self._parked.popleft()
            if self._leader.state is not SequenceState.FINISHED:
                return [self._leader]
        return []

    def _unpark(self) -> list[Sequence]:
        # Those cancelled meanwhile are dropped by the queue.
        sequences = list(self._parked)
        self._parked.clear()
        return sequences
