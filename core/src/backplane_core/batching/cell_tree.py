"""`CellTree`: which sequences own which runs of cells, as a prefix tree over their tokens.

    root ── "You are a" ──┬── " cat. Say" …   (retained)
                          └── " dog. Say" ──┬── " hi" …
                                            └── " bye" …

It counts a shared cell once and finds the longest known prefix; it decides nothing.
"""

from collections import Counter
from collections.abc import Iterator


class Run:
    """Cells of positions start … end-1, owned by every sequence whose tail is here or below.

    `token_ids` may be longer than the run and is read at the run's positions only, so that the run
    of a live sequence grows without copying.
    """

    __slots__ = (
        "children",
        "end",
        "num_owners",
        "num_running",
        "parent",
        "start",
        "tails",
        "token_ids",
    )

    def __init__(self, token_ids: list[int], start: int, end: int, parent: "Run | None") -> None:
        self.token_ids = token_ids
        self.start = start
        self.end = end
        self.parent = parent
        self.children: dict[int, list[Run]] = {}
        self.tails: set[int] = set()
        self.num_owners = 0
        self.num_running = 0

    def path(self) -> "Iterator[Run]":
        """This run and those before it, back to the root, which holds no cells."""
        run: Run | None = self
        while run is not None:
            yield run
            run = run.parent

    def spelled(self) -> list[int]:
        """The tokens of the cells up to the end of this run. O(n): for checks."""
        runs = reversed(list(self.path()))
        return [token_id for run in runs for token_id in run.token_ids[run.start : run.end]]


class CellTree:
    """One tree per salt. `num_used` and `num_cached` count distinct cells.

    A cell is used while a running sequence owns it, cached while only retained ones do.
    """

    def __init__(self) -> None:
        self.num_used = 0
        self.num_cached = 0
        self._roots: dict[bytes, Run] = {}

    def match(
        self, salt: bytes, token_ids: list[int], limit: int, *, whole: bool
    ) -> tuple[int, Run] | None:
        """The longest known prefix of at most `limit` tokens, and a run that holds its end.

        With `whole`, only a prefix that is all some sequence has.
        """
        root = self._roots.get(salt)
        if root is None:
            return None
        best: tuple[int, Run] | None = None
        length = 0
        pending = [root]
        while pending and length < limit:
            run = pending.pop()
            if run.end > length and run.end <= limit and (run.tails or not whole):
                length, best = run.end, (run.end, run)
            if run.end >= limit:
                continue
            for child in run.children.get(token_ids[run.end], ()):
                end = common_end(child.token_ids, token_ids, child.start, min(child.end, limit))
                if end == child.end:
                    pending.append(child)
                elif end > length and not whole:
                    length, best = end, (end, child)
        return best

    def num_revived(self, end: int, run: Run) -> int:
        """How many cached cells become used when a running sequence shares up to `end`."""
        return sum(min(step.end, end) - step.start for step in run.path() if not step.num_running)

    def any_owner(self, run: Run) -> int:
        """A sequence that owns the run."""
        while not run.tails:
            run = next(iter(run.children.values()))[0]
        return next(iter(run.tails))

    def join(self, seq_id: int, salt: bytes, match: tuple[int, Run] | None) -> Run:
        """A running sequence comes to own the matched prefix, or nothing yet; its tail."""
        if match is None:
            tail = self._roots.setdefault(salt, Run([], 0, 0, None))
        else:
            end, tail = match
            if end < tail.end:
                tail = self._split(tail, end)
        tail.tails.add(seq_id)
        for run in tail.path():
            run.num_owners += 1
            run.num_running += 1
            if run.num_running == 1:
                self.num_used += run.end - run.start
                if run.num_owners > 1:
                    self.num_cached -= run.end - run.start
        return tail

    def extend(self, seq_id: int, tail: Run, token_ids: list[int], end: int) -> Run:
        """A running sequence owns cells up to `end` > `tail.end`, the new ones alone; its tail."""
        self.num_used += end - tail.end
        if tail.num_owners == 1 and tail.token_ids is token_ids:
            tail.end = end
            return tail
        run = Run(token_ids, tail.end, end, tail)
        run.num_owners = run.num_running = 1
        tail.children.setdefault(token_ids[run.start], []).append(run)
        tail.tails.discard(seq_id)
        run.tails.add(seq_id)
        return run

    def retire(self, tail: Run) -> None:
        """A running sequence becomes a retained one."""
        for run in tail.path():
            run.num_running -= 1
            if not run.num_running:
                self.num_used -= run.end - run.start
                self.num_cached += run.end - run.start

    def cut(self, seq_id: int, tail: Run, end: int, *, running: bool) -> Run:
        """A sequence gives up what lies at `end` and after; its new tail."""
        tail.tails.discard(seq_id)
        while tail.start >= end and tail.parent is not None:
            self._disown(tail, running=running)
            tail = tail.parent
        if tail.end > end:
            kept = self._split(tail, end)
            self._disown(tail, running=running)
            tail = kept
        tail.tails.add(seq_id)
        return tail

    def leave(self, seq_id: int, salt: bytes, tail: Run, *, running: bool) -> None:
        """A sequence gives up everything."""
        root = self.cut(seq_id, tail, 0, running=running)
        root.tails.discard(seq_id)
        self._disown(root, running=running)
        if not root.num_owners:
            del self._roots[salt]

    def check_integrity(self, running: dict[int, Run], retained: dict[int, Run]) -> None:
        """Count again from the tails of all sequences.

        Raises:
            AssertionError: a run is lost, misplaced or miscounted.
        """
        owners: Counter[Run] = Counter()
        users: Counter[Run] = Counter()
        for tails, counters in ((running, (owners, users)), (retained, (owners,))):
            for seq_id, tail in tails.items():
                if seq_id not in tail.tails:
                    raise AssertionError(f"the tail of sequence id {seq_id} does not know it")
                for counter in counters:
                    counter.update(tail.path())
        num_tails = 0
        for run in self._runs():
            num_tails += len(run.tails)
            if not owners[run] or (owners[run], users[run]) != (run.num_owners, run.num_running):
                raise AssertionError(f"a run has {owners[run]} owners, not {run.num_owners}")
        if num_tails != len(running) + len(retained) or set(owners) != set(self._runs()):
            raise AssertionError("a run or a tail is lost")
        num_used = sum(run.end - run.start for run in users)
        num_cached = sum(run.end - run.start for run in owners) - num_used
        if (num_used, num_cached) != (self.num_used, self.num_cached):
            raise AssertionError(
                f"{num_used} used and {num_cached} cached cells, "
                f"not {self.num_used} and {self.num_cached}"
            )

    def _runs(self) -> Iterator[Run]:
        pending = list(self._roots.values())
        while pending:
            run = pending.pop()
            yield run
            for token_id, children in run.children.items():
                for child in children:
                    if child.token_ids[child.start] != token_id or child.start != run.end:
                        raise AssertionError("a run hangs in the wrong place")
                pending += children

    def _split(self, run: Run, end: int) -> Run:
        """Cut a run in two at `end`; the first half, which has the same owners."""
        first = Run(run.token_ids, run.start, end, run.parent)
        first.num_owners = run.num_owners
        first.num_running = run.num_running
        siblings = _siblings(run)
        siblings[siblings.index(run)] = first
        first.children = {run.token_ids[end]: [run]}
        run.start = end
        run.parent = first
        return first

    def _disown(self, run: Run, *, running: bool) -> None:
        size = run.end - run.start
        run.num_owners -= 1
        if running:
            run.num_running -= 1
            if not run.num_running:
                self.num_used -= size
                self.num_cached += size
        if not run.num_owners:
            self.num_cached -= size
            if run.parent is not None:
                siblings = _siblings(run)
                siblings.remove(run)
                if not siblings:
                    del run.parent.children[run.token_ids[run.start]]


def _siblings(run: Run) -> list[Run]:
    if run.parent is None:
        raise AssertionError("the root of a cell tree has no siblings")
    return run.parent.children[run.token_ids[run.start]]


def common_end(first: list[int], second: list[int], start: int, end: int) -> int:
    """Where two lists, equal before `start`, first differ; `end` if nowhere before it."""
    if first[start:end] == second[start:end]:
        return end
    # Slices compare in C: halving beats walking in Python.
    while end - start > 1:
        middle = (start + end) // 2
        if first[start:middle] == second[start:middle]:
            start = middle
        else:
            end = middle
    return start
