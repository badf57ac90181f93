"""`BlockPool`: which physical blocks are free, and how many owners the others have.

Knows nothing of tokens or hashes. A block is free, owned, or held by the prefix cache (no owner).
"""


class BlockPool:
    """Reference counts of blocks 0 … num_blocks-1."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_owners = [0] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that `take` can hand out."""
        return len(self._free)

    def num_owners(self, block: int) -> int:
        """How many sequences hold the block."""
        return self._num_owners[block]

    def take(self) -> int:
        """A free block, now with one owner; the caller made sure that there is one."""
        block = self._free.pop()
        self._num_owners[block] = 1
        return block

    def own(self, block: int) -> None:
        """One more owner of a block that is not free."""
        self._num_owners[block] += 1

    def disown(self, block: int) -> bool:
        """One owner less. Whether it was the last: then `free` the block, or cache it."""
        self._num_owners[block] -= 1
        return self._num_owners[block] == 0

    def free(self, block: int) -> None:
        """Put an ownerless block back."""
        self._free.append(block)

    def check_integrity(self, owners: list[int], cached: set[int]) -> None:
        """Compare with the owners counted by the caller, one entry per block.

        Raises:
            AssertionError: a block is lost, owned while free, or miscounted.
        """
        free = set(self._free)
        if len(free) != len(self._free):
            raise AssertionError("a block is free twice")
        if owners != self._num_owners:
            raise AssertionError(f"owners are {owners}, counted {self._num_owners}")
        owned = {block for block, count in enumerate(owners) if count}
        if free & owned or free & cached or owned & cached:
            raise AssertionError("a block is in two states at once")
        if len(free) + len(owned) + len(cached) != self.num_blocks:
            raise AssertionError(
                f"{len(free)} free + {len(owned)} owned + {len(cached)} cached blocks "
                f"are not {self.num_blocks}"
            )
