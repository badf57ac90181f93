"""`PagedMemory`: blocks of tokens, any block in any sequence, shared by content, group by group."""

from collections.abc import Collection
from itertools import repeat

from backplane_core.batching.executor import ExecutorTraits
from backplane_core.batching.group_blocks import GroupBlocks
from backplane_core.batching.memory import Memory, MemoryUsage, MemoryVerbs, Retention, held_id
from backplane_core.batching.prefix_cache import block_hash
from backplane_core.batching.sequence import Sequence


class PagedMemory(Memory):
    """Block tables over groups of blocks. A sequence's tables are equally long.

    A full block can be found by others as soon as it is computed. A partly filled block is never
    shared: whoever needs its tokens computes them again.
    """

    def __init__(self, traits: ExecutorTraits, verbs: MemoryVerbs, retention: Retention) -> None:
        self.shares = traits.shareable
        self._block_size = traits.block_size
        self._verbs = verbs
        # What may be retained is the same part of each group.
        self._groups = [
            GroupBlocks(
                group,
                traits.block_size,
                traits.max_batch_tokens,
                group.num_blocks * retention.max_tokens // traits.cache_tokens,
            )
            for group in traits.groups
        ]
        longest = [group.max_sequence_blocks for group in self._groups]
        self.max_sequence_tokens = min(
            [traits.slot_tokens, *(one * traits.block_size for one in longest if one is not None)]
        )
        self._windowed = [group for group in self._groups if group.windowed]
        self._unwindowed = [group for group in self._groups if not group.windowed]
        self._free_ids = list(range(traits.max_sequences - 1, -1, -1))
        self._num_running = 0
        self._num_full = [0] * traits.max_sequences  # blocks, when last looked at

    def admit(self, sequence: Sequence, headroom: int) -> bool:
        """Take over the cached full blocks of its tokens."""
        if not self._free_ids:
            return False
        num_found = self._find_prefix(sequence)
        contents = sequence.block_hashes[:num_found]
        tables = [group.find_table(contents) for group in self._groups]
        num_blocks = self._num_blocks(len(sequence.token_ids))
        num_spare = self._num_blocks(headroom)
        for group, table in zip(self._groups, tables, strict=True):
            if not group.has_room(table, num_blocks, num_spare, self._num_running):
                return False
        for group, table in zip(self._groups, tables, strict=True):
            group.take_over(table)
        seq_id = self._free_ids.pop()
        self._num_running += 1
        self._num_full[seq_id] = num_found
        sequence.seq_id = seq_id
        sequence.block_tables = tables
        sequence.num_computed_tokens = num_found * self._block_size
        sequence.num_matched_tokens = sequence.num_computed_tokens
        return True

    def reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Add blocks to the tables, where each group has as many."""
        num_blocks = self._num_blocks(sequence.num_computed_tokens + num_tokens)
        needed = num_blocks - len(sequence.block_tables[0])
        if needed <= 0:
            return True
        if any(needed > group.num_available for group in self._groups):
            return False
        for group, table in zip(self._groups, sequence.block_tables, strict=True):
            group.extend(repeat(table, needed))
        return True

    def commit(self, sequence: Sequence, num_written: int) -> None:  # noqa: ARG002 - a cut-off tail stays in its blocks, unread
        """Look into the blocks that became full."""
        self._settle(sequence)

    def reserve_decodes(self, sequences: list[Sequence]) -> bool:
        """Add a block to those whose last one is full: computed tokens never lack theirs."""
        size = self._block_size
        lacking = [
            sequence
            for sequence in sequences
            if not sequence.num_computed_tokens % size
            and sequence.num_computed_tokens == len(sequence.block_tables[0]) * size
        ]
        if not lacking:
            return True
        if any(len(lacking) > group.num_available for group in self._groups):
            return False
        for place, group in enumerate(self._groups):
            group.extend(sequence.block_tables[place] for sequence in lacking)
        return True

    def commit_decodes(self, sequences: list[Sequence]) -> None:
        """Count on, and look into the blocks that became full."""
        size = self._block_size
        filled: list[Sequence] = []
        for sequence in sequences:
            num_computed = sequence.num_computed_tokens + 1
            sequence.num_computed_tokens = num_computed
            if not num_computed % size:
                filled.append(sequence)
        for sequence in filled:
            self._settle(sequence)

    def release(self, sequence: Sequence, num_kept: int) -> None:
        """Give up its blocks; the full ones among those kept stay in the prefix cache.

        So do those that a window had passed: they have been anybody's since.
        """
        seq_id = held_id(sequence)
        for group, table in zip(self._groups, sequence.block_tables, strict=True):
            group.release(table, num_kept // self._block_size)
        sequence.block_tables = []
        sequence.seq_id = None
        self._num_running -= 1
        self._free_ids.append(seq_id)
        self._verbs.release(seq_id)

    def drop_cached(self) -> bool:
        """Nothing: blocks are allocated once, so giving some up frees nothing on the device."""
        return False

    def usage(self) -> MemoryUsage:
        """Whole blocks of the first group, in tokens."""
        size, group = self._block_size, self._groups[0]
        num_owned = group.num_blocks - group.num_free - group.num_cached
        return MemoryUsage(num_owned * size, group.num_cached * size, group.num_free * size)

    def check_integrity(self, running: Collection[Sequence]) -> None:
        """Count the owners of each block, and the ids."""
        for sequence in running:
            lengths = {len(table) for table in sequence.block_tables}
            if len(sequence.block_tables) != len(self._groups) or len(lengths) != 1:
                raise AssertionError(f"tables of {lengths} blocks in {len(self._groups)} groups")
            if min(lengths) < self._num_blocks(sequence.num_computed_tokens):
                raise AssertionError("computed tokens without a block")
        for place, group in enumerate(self._groups):
            group.check_integrity(
                (sequence.block_tables[place], sequence.num_computed_tokens // self._block_size)
                for sequence in running
            )
        ids = {sequence.seq_id for sequence in running}
        if len(ids) != len(running) or ids & set(self._free_ids):
            raise AssertionError("a sequence id is held twice, or held while free")
        if len(ids) != self._num_running:
            raise AssertionError(f"{len(ids)} sequences run, {self._num_running} are counted")
        if len(ids) + len(self._free_ids) != len(self._num_full):
            raise AssertionError("a sequence id is lost")

    def _settle(self, sequence: Sequence) -> None:
        """Name the blocks that became full, and give up those that are out of sight since."""
        size = self._block_size
        seq_id = held_id(sequence)
        begin = self._num_full[seq_id]
        end = sequence.num_computed_tokens // size
        if begin == end:
            return
        self._num_full[seq_id] = end
        if self.shares:
            for index in range(begin, end):
                content = self._hash(sequence, index)
                for place, group in enumerate(self._groups):
                    group.cache.insert(content, sequence.block_tables[place][index])
        if self._windowed:
            num_prompt_blocks = sequence.num_prompt_tokens // size
            for group, table in zip(self._groups, sequence.block_tables, strict=True):
                group.pass_by(table, begin, end, num_prompt_blocks)

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_size)

    def _find_prefix(self, sequence: Sequence) -> int:
        """How many leading blocks to take over, short of the last token: its logits are needed.

        Groups without a window must have all of them, the others what is seen from their end.
        """
        num_blocks = (len(sequence.token_ids) - 1) // self._block_size if self.shares else 0
        for index in range(num_blocks):
            content = self._hash(sequence, index)
            if any(group.cache.find(content) is None for group in self._unwindowed):
                num_blocks = index
                break
        contents = sequence.block_hashes
        while self._windowed:
            longest = min(group.longest_prefix(contents, num_blocks) for group in self._windowed)
            if longest == num_blocks:
                break
            num_blocks = longest
        return num_blocks

    def _hash(self, sequence: Sequence, index: int) -> bytes:
        """The name of a full block's content; those before it have been asked for already."""
        hashes = sequence.block_hashes
        if index == len(hashes):
            start = index * self._block_size
            parent = hashes[-1] if hashes else sequence.prefix_salt
            token_ids = sequence.token_ids[start : start + self._block_size]
            hashes.append(block_hash(parent, token_ids))
        return hashes[index]
