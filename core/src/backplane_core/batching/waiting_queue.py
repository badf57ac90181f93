"""`WaitingQueue`: sequences that wait for memory, by rank. O(log n), whatever its length."""

import heapq

from backplane_core.batching.sequence import Sequence, SequenceState


class WaitingQueue:
    """A heap by `Sequence.rank`. A sequence that stopped waiting is dropped when it comes up."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, int, int], Sequence]] = []

    def push(self, sequence: Sequence) -> None:
        """Add a waiting sequence. Ranks are unique."""
        heapq.heappush(self._heap, (sequence.rank, sequence))

    def peek(self) -> Sequence | None:
        """The waiting sequence with the lowest rank."""
        while self._heap:
            sequence = self._heap[0][1]
            if sequence.state is SequenceState.WAITING:
                return sequence
            heapq.heappop(self._heap)
        return None

    def pop(self) -> None:
        """Remove what `peek` returned."""
        heapq.heappop(self._heap)
