"""`SlotMemory`: sequences that cannot share. A slot's next sequence may take over its prefix."""

from collections import OrderedDict
from collections.abc import Collection

from backplane_core.batching.cell_tree import common_end
from backplane_core.batching.executor import ExecutorTraits
from backplane_core.batching.memory import Memory, MemoryUsage, MemoryVerbs, Retention, held_id
from backplane_core.batching.sequence import Sequence


class _Retained:
    """What a finished sequence left in its slot."""

    __slots__ = ("length", "salt", "token_ids")

    def __init__(self, salt: bytes, token_ids: list[int], length: int) -> None:
        self.salt = salt
        self.token_ids = token_ids
        self.length = length


class SlotMemory(Memory):
    """Fixed slots, or cells that cannot be shared: then the slots draw on one pool.

    Finding a prefix compares with every retained slot, of which there are at most
    `max_sequences`; the comparisons run in C.
    """

    shares = False

    def __init__(self, traits: ExecutorTraits, verbs: MemoryVerbs, retention: Retention) -> None:
        self._verbs = verbs
        self._trimmable = traits.trimmable
        self._capacity = traits.cache_tokens
        self.max_sequence_tokens = min(traits.slot_tokens, traits.cache_tokens)
        self._retention = retention
        self._free_ids = list(range(traits.max_sequences - 1, -1, -1))
        self._held = [0] * traits.max_sequences
        self._num_used = 0
        self._num_decodes = 0  # tokens reserved by `reserve_decodes`
        self._num_cached = 0
        self._retained: OrderedDict[int, _Retained] = OrderedDict()

    @property
    def _num_free(self) -> int:
        return self._capacity - self._num_used - self._num_decodes - self._num_cached

    def admit(self, sequence: Sequence, headroom: int) -> bool:
        """Take a retained slot over with its prefix, or take a free one."""
        if not self._free_ids and not self._retained:
            return False
        source, end = self._find_prefix(sequence)
        lost = self._retained[source].length if source is not None else 0
        available = self._num_free + self._num_cached - end
        if available < len(sequence.token_ids) - end + headroom:
            return False
        # Taking a slot over costs what lies behind the match; with a free slot at hand that is
        # worth it only if less is lost than kept.
        if source is not None and (not self._free_ids or 2 * end >= lost):
            seq_id = source
            self._num_cached -= self._retained.pop(source).length
            self._verbs.hand_over(seq_id, end)
        else:
            end = 0
            if not self._free_ids:
                self._forget(next(iter(self._retained)))
            seq_id = self._free_ids.pop()
        self._hold(seq_id, end)
        sequence.seq_id = seq_id
        sequence.num_computed_tokens = end
        sequence.num_matched_tokens = end
        return True

    def reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Let its slot hold more, forgetting retained ones where the pool is short."""
        seq_id = held_id(sequence)
        more = sequence.num_computed_tokens + num_tokens - self._held[seq_id]
        if more > self._num_free + self._num_cached:
            return False
        while more > self._num_free:
            self._forget(next(iter(self._retained)))
        self._hold(seq_id, self._held[seq_id] + more)
        return True

    def commit(self, sequence: Sequence, num_written: int) -> None:
        """Let its slot hold just what is computed."""
        seq_id = held_id(sequence)
        self._hold(seq_id, sequence.num_computed_tokens)
        if num_written > sequence.num_computed_tokens and self._trimmable:
            self._verbs.trim(seq_id, sequence.num_computed_tokens)

    def reserve_decodes(self, sequences: list[Sequence]) -> bool:
        """Set a token aside for each, in one sum."""
        self._num_decodes = 0
        needed = len(sequences)
        if needed > self._num_free + self._num_cached:
            return False
        while needed > self._num_free:
            self._forget(next(iter(self._retained)))
        self._num_decodes = needed
        return True

    def commit_decodes(self, sequences: list[Sequence]) -> None:
        """Let the slot of each hold one token more."""
        self._num_decodes = 0
        held = self._held
        for sequence in sequences:
            if (seq_id := sequence.seq_id) is None:
                raise AssertionError("a sequence that decodes holds no memory")
            sequence.num_computed_tokens += 1
            held[seq_id] += 1
        self._num_used += len(sequences)

    def release(self, sequence: Sequence, num_kept: int) -> None:
        """Retain the slot with what it holds."""
        seq_id = held_id(sequence)
        sequence.seq_id = None
        self._hold(seq_id, 0)
        if num_kept < sequence.num_computed_tokens and not self._trimmable:
            num_kept = 0
        if not num_kept:
            self._free_ids.append(seq_id)
            self._verbs.release(seq_id)
            return
        if num_kept < sequence.num_computed_tokens:
            self._verbs.trim(seq_id, num_kept)
        self._retained[seq_id] = _Retained(sequence.prefix_salt, sequence.token_ids, num_kept)
        self._num_cached += num_kept
        while (
            len(self._retained) > self._retention.max_sequences
            or self._num_cached > self._retention.max_tokens
        ):
            self._forget(next(iter(self._retained)))

    def drop_cached(self) -> bool:
        """Forget every retained slot."""
        dropped = bool(self._retained)
        while self._retained:
            self._forget(next(iter(self._retained)))
        return dropped

    def usage(self) -> MemoryUsage:
        """Tokens held, out of the pool."""
        return MemoryUsage(self._num_used + self._num_decodes, self._num_cached, self._num_free)

    def check_integrity(self, running: Collection[Sequence]) -> None:
        """Count ids and tokens."""
        ids = [held_id(sequence) for sequence in running]
        holders = sorted([*ids, *self._retained, *self._free_ids])
        if holders != list(range(len(self._held))):
            raise AssertionError(f"sequence ids held or free: {holders}")
        for sequence in running:
            if self._held[held_id(sequence)] < sequence.num_computed_tokens:
                raise AssertionError("computed tokens that no slot holds")
        num_cached = sum(retained.length for retained in self._retained.values())
        if (sum(self._held), num_cached) != (self._num_used, self._num_cached):
            raise AssertionError(f"{self._num_used} used, {self._num_cached} cached: miscounted")
        if self._num_free < 0 or max(self._held) > self.max_sequence_tokens:
            raise AssertionError("a slot or the pool holds more than it can")

    def _hold(self, seq_id: int, num_tokens: int) -> None:
        self._num_used += num_tokens - self._held[seq_id]
        self._held[seq_id] = num_tokens

    def _forget(self, seq_id: int) -> None:
        self._num_cached -= self._retained.pop(seq_id).length
        self._free_ids.append(seq_id)
        self._verbs.release(seq_id)

    def _find_prefix(self, sequence: Sequence) -> tuple[int | None, int]:
        """The retained slot that saves most, and how many tokens."""
        best: int | None = None
        length = 0
        limit = len(sequence.token_ids) - 1
        for seq_id, retained in self._retained.items():
            if retained.salt != sequence.prefix_salt:
                continue
            end = common_end(retained.token_ids, sequence.token_ids, 0, min(limit, retained.length))
            if end > length and (self._trimmable or end == retained.length):
                best, length = seq_id, end
        return best, length
