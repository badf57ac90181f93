"""`PagedMemory`: blocks of tokens, any block in any sequence, shared by content."""

from collections.abc import Collection

from backplane_core.batching.block_pool import BlockPool
from backplane_core.batching.executor import ExecutorTraits
from backplane_core.batching.memory import Memory, MemoryUsage, MemoryVerbs, Retention, held_id
from backplane_core.batching.prefix_cache import PrefixCache, block_hash
from backplane_core.batching.sequence import Sequence


class PagedMemory(Memory):
    """Block tables over a `BlockPool`, and a `PrefixCache` of full blocks.

    A full block can be found by others as soon as it is computed. A partly filled block is never
    shared: whoever needs its tokens computes them again.
    """

    def __init__(self, traits: ExecutorTraits, verbs: MemoryVerbs, retention: Retention) -> None:
        self.shares = traits.shareable
        self._block_size = traits.block_size
        self._max_tokens = traits.slot_tokens
        self._verbs = verbs
        self._pool = BlockPool(traits.cache_tokens // traits.block_size)
        self._cache = PrefixCache()
        self._max_cached = retention.max_tokens // traits.block_size
        self._free_ids = list(range(traits.max_sequences - 1, -1, -1))
        self._num_named = [0] * traits.max_sequences

    def fits(self, num_tokens: int) -> bool:
        """Whether a sequence may be that long and there are the blocks for it."""
        fits = self._num_blocks(num_tokens) <= self._pool.num_blocks
        return fits and num_tokens <= self._max_tokens

    def admit(self, sequence: Sequence, headroom: int) -> bool:
        """Take over the cached full blocks of its tokens."""
        if not self._free_ids:
            return False
        prefix = self._find_prefix(sequence)
        needed = self._num_blocks(len(sequence.token_ids)) - len(prefix)
        num_revived = sum(not self._pool.num_owners(block) for block in prefix)
        available = self._pool.num_free + self._cache.num_unowned - num_revived
        if available < needed + self._num_blocks(headroom):
            return False
        for block in prefix:
            self._pool.own(block)
            self._cache.own(block)
        seq_id = self._free_ids.pop()
        self._num_named[seq_id] = len(prefix)
        sequence.seq_id = seq_id
        sequence.block_tables = [prefix]
        sequence.num_computed_tokens = len(prefix) * self._block_size
        sequence.num_matched_tokens = sequence.num_computed_tokens
        return True

    def reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Add blocks to the table, evicting one by one."""
        num_blocks = self._num_blocks(sequence.num_computed_tokens + num_tokens)
        needed = num_blocks - len(sequence.block_tables[0])
        if needed <= 0:
            return True
        if needed > self._pool.num_free + self._cache.num_unowned:
            return False
        for _ in range(needed):
            self._add_block(sequence)
        return True

    def commit(self, sequence: Sequence, num_written: int) -> None:  # noqa: ARG002 - a cut-off tail stays in its blocks, unread
        """Name the blocks that became full."""
        if self.shares:
            self._name_blocks(sequence)

    def reserve_decodes(self, sequences: list[Sequence]) -> bool:
        """Add a block to those whose last one is full: computed tokens never lack theirs."""
        size = self._block_size
        lacking = [
            sequence
            for sequence in sequences
            if not sequence.num_computed_tokens % size
            and sequence.num_computed_tokens == len(sequence.block_tables[0]) * size
        ]
        if len(lacking) > self._pool.num_free + self._cache.num_unowned:
            return False
        for sequence in lacking:
            self._add_block(sequence)
        return True

    def commit_decodes(self, sequences: list[Sequence]) -> None:
        """Count on, and name the blocks that became full."""
        size = self._block_size
        filled: list[Sequence] = []
        for sequence in sequences:
            num_computed = sequence.num_computed_tokens + 1
            sequence.num_computed_tokens = num_computed
            if not num_computed % size:
                filled.append(sequence)
        if self.shares:
            for sequence in filled:
                self._name_blocks(sequence)

    def release(self, sequence: Sequence, num_kept: int) -> None:
        """Give up its blocks; the full ones among those kept stay in the prefix cache."""
        seq_id = held_id(sequence)
        num_kept_blocks = num_kept // self._block_size
        # Last block first: the least recently used of a sequence is then its end, and what
        # is left after an eviction is still a prefix.
        for index in range(len(sequence.block_tables[0]) - 1, -1, -1):
            block = sequence.block_tables[0][index]
            if not self._pool.disown(block):
                continue
            if index >= num_kept_blocks or not self._cache.keep(block):
                self._cache.forget(block)
                self._pool.free(block)
        while self._cache.num_unowned > self._max_cached:
            self._pool.free(self._cache.evict())
        sequence.block_tables = []
        sequence.seq_id = None
        self._free_ids.append(seq_id)
        self._verbs.release(seq_id)

    def drop_cached(self) -> bool:
        """Nothing: blocks are allocated once, so giving some up frees nothing on the device."""
        return False

    def usage(self) -> MemoryUsage:
        """Whole blocks, in tokens."""
        free = self._pool.num_free * self._block_size
        cached = self._cache.num_unowned * self._block_size
        capacity = self._pool.num_blocks * self._block_size
        return MemoryUsage(capacity - free - cached, cached, free)

    def check_integrity(self, running: Collection[Sequence]) -> None:
        """Count the owners of each block, and the ids."""
        owners = [0] * self._pool.num_blocks
        for sequence in running:
            for block in sequence.block_tables[0]:
                owners[block] += 1
            if len(sequence.block_tables[0]) < self._num_blocks(sequence.num_computed_tokens):
                raise AssertionError("computed tokens without a block")
        self._pool.check_integrity(owners, self._cache.unowned)
        ids = {sequence.seq_id for sequence in running}
        if len(ids) != len(running) or ids & set(self._free_ids):
            raise AssertionError("a sequence id is held twice, or held while free")
        if len(ids) + len(self._free_ids) != len(self._num_named):
            raise AssertionError("a sequence id is lost")

    def _add_block(self, sequence: Sequence) -> None:
        if not self._pool.num_free:
            self._pool.free(self._cache.evict())
        sequence.block_tables[0].append(self._pool.take())

    def _name_blocks(self, sequence: Sequence) -> None:
        seq_id = held_id(sequence)
        num_full = sequence.num_computed_tokens // self._block_size
        for index in range(self._num_named[seq_id], num_full):
            self._cache.insert(self._hash(sequence, index), sequence.block_tables[0][index])
        self._num_named[seq_id] = max(num_full, self._num_named[seq_id])

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_size)

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        """The cached leading blocks, short of the last token: its logits are needed."""
        blocks: list[int] = []
        if not self.shares:
            return blocks
        for index in range((len(sequence.token_ids) - 1) // self._block_size):
            block = self._cache.find(self._hash(sequence, index))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _hash(self, sequence: Sequence, index: int) -> bytes:
        """The name of a full block's content; those before it have been asked for already."""
        hashes = sequence.block_hashes
        if index == len(hashes):
            start = index * self._block_size
            parent = hashes[-1] if hashes else sequence.prefix_salt
            token_ids = sequence.token_ids[start : start + self._block_size]
            hashes.append(block_hash(parent, token_ids))
        return hashes[index]
