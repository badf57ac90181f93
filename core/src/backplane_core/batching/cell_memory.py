"""`CellMemory`: one pool of cells that sequences share by prefix, as llama.cpp's unified cache.

Finished sequences stay as the prefix cache, until room or their ids are needed.
"""

from collections import OrderedDict
from collections.abc import Collection

from backplane_core.batching.cell_tree import CellTree, Run
from backplane_core.batching.executor import ExecutorTraits
from backplane_core.batching.memory import Memory, MemoryUsage, MemoryVerbs, Retention, held_id
from backplane_core.batching.sequence import Sequence

# A shortage of one cell would otherwise be back at the next step, with a trim for each.
_NUM_SHED_AT_ONCE = 64


class CellMemory(Memory):
    """Cells counted one by one; a cell that k sequences share counts once.

    Prefixes are found at token granularity, in running sequences too. Eviction shortens the least
    recently used retained sequence from its end, where the executor can trim.
    """

    shares = True

    def __init__(self, traits: ExecutorTraits, verbs: MemoryVerbs, retention: Retention) -> None:
        self._verbs = verbs
        self._trimmable = traits.trimmable
        self._capacity = traits.cache_tokens
        self.max_sequence_tokens = min(traits.slot_tokens, traits.cache_tokens)
        self._retention = retention
        self._tree = CellTree()
        self._free_ids = list(range(traits.max_sequences - 1, -1, -1))
        self._tails: list[Run | None] = [None] * traits.max_sequences
        self._reserved = [0] * traits.max_sequences
        self._num_reserved = 0
        self._num_decodes = 0  # cells reserved by `reserve_decodes`
        self._retained: OrderedDict[int, bytes] = OrderedDict()

    @property
    def _num_free(self) -> int:
        tree = self._tree
        reserved = self._num_reserved + self._num_decodes
        return self._capacity - tree.num_used - tree.num_cached - reserved

    def admit(self, sequence: Sequence, headroom: int) -> bool:
        """Share the longest known prefix, of a running sequence or a retained one."""
        if not self._free_ids and not self._retained:
            return False
        tree, token_ids = self._tree, sequence.token_ids
        match = tree.match(
            sequence.prefix_salt, token_ids, len(token_ids) - 1, whole=not self._trimmable
        )
        end = match[0] if match else 0
        available = self._num_free + tree.num_cached - (tree.num_revived(*match) if match else 0)
        if available < len(token_ids) - end + headroom:
            return False
        source = tree.any_owner(match[1]) if match else None
        if source in self._retained:
            self._retained.move_to_end(source)
        if not self._free_ids:
            oldest = next(iter(self._retained))
            if oldest == source:  # the only retained one: its id is all that can be had
                match, end = None, 0
            self._forget(oldest)
        seq_id = self._free_ids.pop()
        self._tails[seq_id] = tree.join(seq_id, sequence.prefix_salt, match)
        if match is not None and source is not None:
            self._verbs.share_prefix(source, seq_id, end)
            if source in self._retained and self._tail(source).end == end:
                self._forget(source)
        sequence.seq_id = seq_id
        sequence.num_computed_tokens = end
        sequence.num_matched_tokens = end
        return True

    def reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Set cells aside, shedding retained ones."""
        seq_id = held_id(sequence)
        more = num_tokens - self._reserved[seq_id]
        if not self._make_room(more):
            return False
        self._reserved[seq_id] = num_tokens
        self._num_reserved += more
        return True

    def commit(self, sequence: Sequence, num_written: int) -> None:
        """Turn reserved cells into owned ones that others can find."""
        seq_id = held_id(sequence)
        end = sequence.num_computed_tokens
        self._num_reserved -= self._reserved[seq_id]
        self._reserved[seq_id] = 0
        tail = self._tail(seq_id)
        if end > tail.end:
            self._tails[seq_id] = self._tree.extend(seq_id, tail, sequence.token_ids, end)
        if num_written > end and self._trimmable:
            self._verbs.trim(seq_id, end)

    def reserve_decodes(self, sequences: list[Sequence]) -> bool:
        """Set a cell aside for each, in one sum."""
        self._num_decodes = 0
        if not self._make_room(len(sequences)):
            return False
        self._num_decodes = len(sequences)
        return True

    def commit_decodes(self, sequences: list[Sequence]) -> None:
        """Let the run of each grow by a cell; whose run others share now begins its own."""
        self._num_decodes = 0
        tree, tails = self._tree, self._tails
        num_grown = 0
        for sequence in sequences:
            end = sequence.num_computed_tokens + 1
            sequence.num_computed_tokens = end
            seq_id = sequence.seq_id
            if seq_id is None or (tail := tails[seq_id]) is None:
                raise AssertionError("a sequence that decodes holds no memory")
            if tail.num_owners == 1 and tail.token_ids is sequence.token_ids:
                tail.end = end  # what `extend` would do, without the call
                num_grown += 1
            else:
                tails[seq_id] = tree.extend(seq_id, tail, sequence.token_ids, end)
        tree.num_used += num_grown

    def release(self, sequence: Sequence, num_kept: int) -> None:
        """Retain the sequence, unless all it has is a prefix of another."""
        seq_id = held_id(sequence)
        self._num_reserved -= self._reserved[seq_id]
        self._reserved[seq_id] = 0
        sequence.seq_id = None
        tail = self._tail(seq_id)
        if num_kept < tail.end:
            if num_kept and self._trimmable:
                tail = self._cut(seq_id, num_kept, running=True)
            else:
                num_kept = 0
        # A tail that others own too is a prefix of theirs: nothing would be gained by keeping it.
        if num_kept == 0 or tail.num_owners > 1:
            self._leave(seq_id, sequence.prefix_salt, running=True)
            return
        self._tree.retire(tail)
        self._retained[seq_id] = sequence.prefix_salt
        while len(self._retained) > self._retention.max_sequences:
            self._forget(next(iter(self._retained)))
        self._shed(self._tree.num_cached - self._retention.max_tokens)

    def drop_cached(self) -> bool:
        """Forget every retained sequence."""
        if not self._retained:
            return False
        for seq_id in list(self._retained):
            self._forget(seq_id)
        return True

    def usage(self) -> MemoryUsage:
        """Distinct cells; reserved ones are used."""
        used = self._tree.num_used + self._num_reserved + self._num_decodes
        return MemoryUsage(used, self._tree.num_cached, self._num_free)

    def check_integrity(self, running: Collection[Sequence]) -> None:
        """Count ids, cells and reservations."""
        ids = [held_id(sequence) for sequence in running]
        holders = sorted([*ids, *self._retained, *self._free_ids])
        if holders != list(range(len(self._tails))):
            raise AssertionError(f"sequence ids held or free: {holders}")
        for sequence in running:
            computed = sequence.token_ids[: sequence.num_computed_tokens]
            if self._tail(held_id(sequence)).spelled() != computed:
                raise AssertionError("a sequence's cells are not its computed tokens")
        self._tree.check_integrity(
            {seq_id: self._tail(seq_id) for seq_id in ids},
            {seq_id: self._tail(seq_id) for seq_id in self._retained},
        )
        if sum(self._reserved) != self._num_reserved:
            raise AssertionError(f"{self._num_reserved} reserved cells are {sum(self._reserved)}")
        if self._num_free < 0:
            raise AssertionError(f"{-self._num_free} cells more than there are")

    def _tail(self, seq_id: int) -> Run:
        tail = self._tails[seq_id]
        if tail is None:
            raise AssertionError(f"sequence id {seq_id} holds no memory")
        return tail

    def _cut(self, seq_id: int, end: int, *, running: bool) -> Run:
        tail = self._tree.cut(seq_id, self._tail(seq_id), end, running=running)
        self._tails[seq_id] = tail
        self._verbs.trim(seq_id, end)
        return tail

    def _leave(self, seq_id: int, salt: bytes, *, running: bool) -> None:
        self._tree.leave(seq_id, salt, self._tail(seq_id), running=running)
        self._tails[seq_id] = None
        self._free_ids.append(seq_id)
        self._verbs.release(seq_id)

    def _forget(self, seq_id: int) -> None:
        self._leave(seq_id, self._retained.pop(seq_id), running=False)

    def _make_room(self, num_tokens: int) -> bool:
        lacking = num_tokens - self._num_free
        if lacking > 0:
            if lacking > self._tree.num_cached:
                return False
            self._shed(lacking)
        return True

    def _shed(self, num_tokens: int) -> None:
        """Evict at least so many cached cells, as far as there are any."""
        target = self._tree.num_cached - num_tokens
        while self._tree.num_cached > target and self._retained:
            seq_id = next(iter(self._retained))
            tail = self._tail(seq_id)
            excess = max(self._tree.num_cached - target, _NUM_SHED_AT_ONCE)
            if self._trimmable and tail.num_owners == 1 and tail.end - tail.start > excess:
                self._cut(seq_id, tail.end - excess, running=False)
            else:
                self._forget(seq_id)
