"""`GroupBlocks`: the blocks of one `BlockGroup`: free, in block tables, or kept for reuse.

Knows no sequences, only their tables of this group; contents it knows by name.
"""

from collections.abc import Iterable

from backplane_core.batching.block_pool import BlockPool
from backplane_core.batching.executor import BlockGroup
from backplane_core.batching.prefix_cache import PrefixCache


def num_seen_blocks(window: int, block_size: int) -> int:
    """How many blocks before its own the first token of a block sees."""
    return -(-(window - 1) // block_size)


def most_held_blocks(
    window: int, block_size: int, num_sequences: int, max_batch_tokens: int
) -> int:
    """How many blocks so many sequences hold at most, however long they are.

    Each has those it sees, and two that its share of a batch begins and ends in; the batch fills
    the others. In a group of that size nobody waits for a block.
    """
    num_each = num_seen_blocks(window, block_size) + 2
    return num_sequences * num_each + max_batch_tokens // block_size


class GroupBlocks:
    """A `BlockPool`, and a `PrefixCache` of full blocks.

    `cache` is there to find blocks in, and to name those that are full. A sequence with n full
    blocks holds those among them that the token behind them sees, and what it fills: so another
    that goes on after the same n blocks finds what it needs.
    """

    def __init__(
        self, group: BlockGroup, block_size: int, max_batch_tokens: int, max_cached: int
    ) -> None:
        num_blocks = group.num_blocks
        self.windowed = group.window is not None
        self._block_size = block_size
        self._max_batch_tokens = max_batch_tokens
        self._max_cached = max_cached
        self._pool = BlockPool(num_blocks)
        self.cache = PrefixCache()
        # Without a window a token sees as far back as there are blocks.
        self._window = num_blocks * block_size + 1 if group.window is None else group.window
        self._num_seen = num_seen_blocks(self._window, block_size)

    @property
    def num_blocks(self) -> int:
        """All there are."""
        return self._pool.num_blocks

    @property
    def num_free(self) -> int:
        """Blocks without content."""
        return self._pool.num_free

    @property
    def num_cached(self) -> int:
        """Blocks with content that nobody owns."""
        return self.cache.num_unowned

    @property
    def num_available(self) -> int:
        """Blocks that `extend` can add: these two kinds."""
        return self._pool.num_free + self.cache.num_unowned

    @property
    def max_sequence_blocks(self) -> int | None:
        """How long a sequence may be that is alone; None where its window keeps it short enough."""
        return None if self._most_held(1) <= self._pool.num_blocks else self._pool.num_blocks

    def longest_prefix(self, contents: list[bytes], num_blocks: int) -> int:
        """After how many of these blocks, at most so many, a sequence could go on."""
        index = num_blocks
        while index > max(0, num_blocks - self._num_seen):
            index -= 1
            if self.cache.find(contents[index]) is None:
                num_blocks = index
        return num_blocks

    def find_table(self, contents: list[bytes]) -> list[int]:
        """The table of a sequence that goes on after these blocks, which it does not own yet."""
        num_passed = max(0, len(contents) - self._num_seen)
        seen = [self.cache.find(content) for content in contents[num_passed:]]
        return [-1] * num_passed + [block for block in seen if block is not None]

    def has_room(self, table: list[int], num_blocks: int, num_spare: int, num_running: int) -> bool:
        """Whether one more sequence can start.

        Args:
            table: what it takes over.
            num_blocks: how many its known tokens fill.
            num_spare: how many more the running ones may come to need.
            num_running: how many run.
        """
        if self._most_held(num_running + 1) <= self._pool.num_blocks:
            return True
        num_passed = table.count(-1)
        num_shared = sum(self._pool.num_owners(block) > 0 for block in table[num_passed:])
        num_held = min(num_blocks - num_passed, self._most_held(1))
        return self.num_available >= num_held - num_shared + num_spare

    def take_over(self, table: list[int]) -> None:
        """One more owner of the blocks that were found."""
        for block in table:
            if block >= 0:
                self._pool.own(block)
                self.cache.own(block)

    def extend(self, tables: Iterable[list[int]]) -> None:
        """Add a block to each of these, for which there are enough, evicting one by one."""
        pool = self._pool
        for table in tables:
            if not pool.num_free:
                pool.free(self.cache.evict())
            table.append(pool.take())

    def pass_by(self, table: list[int], begin: int, end: int, num_prompt_blocks: int) -> None:
        """Give up what is out of sight since the table's full blocks, `begin` before, are `end`.

        It can be found until it is evicted. Others may part from a prompt at any place, so its
        blocks are kept like all others. An output is gone on from at its end, which is not passed
        yet: what is passed of it is evicted before all else.
        """
        for index in range(max(0, begin - self._num_seen), end - self._num_seen):
            self._give_up(table[index], keep=True, evict_next=index >= num_prompt_blocks)
            table[index] = -1
        self._evict_surplus()

    def release(self, table: list[int], num_kept: int) -> None:
        """Give up a table; the first `num_kept` blocks are full and can be found further on."""
        # Last block first: the least recently used of a sequence is then its end, and what
        # is left after an eviction is still a prefix.
        for index in range(len(table) - 1, table.count(-1) - 1, -1):
            self._give_up(table[index], keep=index < num_kept)
        self._evict_surplus()

    def check_integrity(self, tables: Iterable[tuple[list[int], int]]) -> None:
        """Count the owners of each block, from all tables and how many blocks of each are full.

        Raises:
            AssertionError: a block is lost or miscounted, or not held while it is seen.
        """
        owners = [0] * self._pool.num_blocks
        for table, num_full in tables:
            num_passed = max(0, num_full - self._num_seen)
            if table.count(-1) != num_passed or -1 in table[num_passed:]:
                raise AssertionError(f"{table} where {num_passed} blocks are passed")
            for block in table[num_passed:]:
                owners[block] += 1
        self._pool.check_integrity(owners, self.cache.unowned)

    def _most_held(self, num_sequences: int) -> int:
        return most_held_blocks(
            self._window, self._block_size, num_sequences, self._max_batch_tokens
        )

    def _give_up(self, block: int, *, keep: bool, evict_next: bool = False) -> None:
        if not self._pool.disown(block):
            return
        if not keep or not self.cache.keep(block, evict_next=evict_next):
            self.cache.forget(block)
            self._pool.free(block)

    def _evict_surplus(self) -> None:
        while self.cache.num_unowned > self._max_cached:
            self._pool.free(self.cache.evict())
