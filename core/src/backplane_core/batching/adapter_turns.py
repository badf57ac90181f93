"""`AdapterTurns`: which adapters may share the next batch, so that each gets its turn."""

from collections import Counter


class AdapterTurns:
    """Adapters of the sequences in the cache, and when each was last served.

    The bare model (None) counts as an adapter of its own.
    """

    def __init__(self, max_per_batch: int) -> None:
        self._max_per_batch = max(1, max_per_batch)
        self._running: Counter[str | None] = Counter()
        self._last_turn: dict[str | None, int] = {}
        self._turn = 0
        self._turns_before: dict[str | None, int] = {}  # of those who were chosen last

    def enter(self, adapter: str | None) -> None:
        """A sequence with it came into the cache."""
        self._running[adapter] += 1

    def leave(self, adapter: str | None) -> None:
        """A sequence with it left the cache."""
        self._running[adapter] -= 1
        if not self._running[adapter]:
            del self._running[adapter]

    @property
    def num_candidates(self) -> int:
        """After so many calls of `choose`, each adapter has had a turn."""
        return len(self._running) + 1

    def choose(self, *waiting: str | None) -> "AdapterSet":
        """The adapters of the next batch: the longest unserved, where not all can be in it.

        `waiting` is the adapter of the sequence that is first in the queue, if there is one.
        """
        candidates = [*self._running, *(name for name in waiting if name not in self._running)]
        complete = len(candidates) <= self._max_per_batch
        if not complete:
            candidates.sort(key=lambda name: self._last_turn.get(name, 0))
            del candidates[self._max_per_batch :]
        self._turn += 1
        last = self._last_turn
        self._turns_before = {name: last.get(name, 0) for name in candidates}
        for name in candidates:
            last[name] = self._turn
        return AdapterSet(candidates, self._max_per_batch, complete=complete)

    def give_back(self) -> None:
        """What was chosen last was not computed: it has waited for as long as before."""
        self._last_turn |= self._turns_before


class AdapterSet:
    """The adapters that one batch may mix; it takes more while there is room.

    It is `complete` if it has those of all sequences that were in the cache when it was chosen.
    """

    def __init__(self, names: list[str | None], max_names: int, *, complete: bool) -> None:
        self.names = set(names)
        self.complete = complete
        self._max_names = max_names

    def permits(self, name: str | None) -> bool:
        """Whether a sequence with this adapter may be in the batch; then it counts."""
        if name in self.names:
            return True
        if len(self.names) == self._max_names:
            return False
        self.names.add(name)
        return True
