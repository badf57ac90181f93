"""The fake executor's modelled memories: blocks, cells and slots."""

import dataclasses

from backplane_core.batching.executor import (
    ExecutorTraits,
    MemoryLayout,
    ScheduledBatch,
    ScheduledSequence,
)

from tests.core.batching.fake_executor import ContractError, FakeExecutor


class FakePagedExecutor(FakeExecutor):
    """Blocks that keep what was last written, whoever reads it."""

    def __init__(self, traits: ExecutorTraits) -> None:
        super().__init__(traits)
        num_blocks = traits.cache_tokens // traits.block_size
        self._blocks: list[list[int | None]] = [
            [None] * traits.block_size for _ in range(num_blocks)
        ]

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Block tables say it all."""
        raise ContractError(f"share_prefix({source}, {target}, {num_tokens}) of a paged executor")

    def _block(self, scheduled: ScheduledSequence, position: int) -> list[int | None]:
        index = position // self.traits.block_size
        if index >= len(scheduled.block_tables[0]):
            raise ContractError(f"no block for position {position}")
        return self._blocks[scheduled.block_tables[0][index]]

    def _read(self, scheduled: ScheduledSequence, length: int) -> list[int]:
        values: list[int] = []
        for position in range(length):
            value = self._block(scheduled, position)[position % self.traits.block_size]
            if value is None:
                raise ContractError(f"position {position} was never computed")
            values.append(value)
        return values

    def _write(self, scheduled: ScheduledSequence, position: int, value: int) -> None:
        self._block(scheduled, position)[position % self.traits.block_size] = value

    def _drop(self, scheduled: ScheduledSequence, length: int) -> None:
        """Nothing: rejected drafts stay in their blocks until they are overwritten."""

    def _length(self, seq_id: int) -> int:
        raise ContractError(f"hand_over({seq_id}) of a paged executor")

    def _has_room(self, batch: ScheduledBatch) -> bool:
        for scheduled in batch.sequences:
            if len(set(scheduled.block_tables[0])) != len(scheduled.block_tables[0]):
                raise ContractError("a block stands twice in a block table")
        return True


@dataclasses.dataclass(slots=True, eq=False)
class _Cell:
    value: int
    owners: set[int]


class FakeCellExecutor(FakeExecutor):
    """One pool of cells; a cell is free when no sequence owns it."""

    def __init__(self, traits: ExecutorTraits) -> None:
        super().__init__(traits)
        self._cells: list[list[_Cell]] = [[] for _ in range(traits.max_sequences)]
        self.num_free = traits.cache_tokens

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """One more owner for the source's leading cells."""
        if not self.traits.shareable or self._cells[target] or source == target:
            raise ContractError(f"share_prefix({source}, {target}, {num_tokens})")
        length = len(self._cells[source])
        if not 0 < num_tokens <= length or (num_tokens < length and not self.traits.trimmable):
            raise ContractError(f"{num_tokens} tokens shared of {length}")
        self._cells[target] = self._cells[source][:num_tokens]
        for cell in self._cells[target]:
            cell.owners.add(target)

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Give up the cells behind."""
        super().trim(seq_id, num_tokens)
        self._give_up(seq_id, num_tokens)

    def release(self, seq_id: int) -> None:
        """Give up all cells."""
        super().release(seq_id)
        self._give_up(seq_id, 0)

    def _give_up(self, seq_id: int, num_kept: int) -> None:
        cells = self._cells[seq_id]
        if num_kept > len(cells):
            raise ContractError(f"{num_kept} tokens kept of {len(cells)}")
        for cell in cells[num_kept:]:
            cell.owners.discard(seq_id)
            if not cell.owners:
                self.num_free += 1
        del cells[num_kept:]

    def _read(self, scheduled: ScheduledSequence, length: int) -> list[int]:
        cells = self._cells[scheduled.seq_id]
        if len(cells) != length:
            raise ContractError(f"a chunk starts at {length}, the cache ends at {len(cells)}")
        return [cell.value for cell in cells]

    def _write(self, scheduled: ScheduledSequence, position: int, value: int) -> None:
        cells = self._cells[scheduled.seq_id]
        if len(cells) != position:
            raise ContractError(f"position {position} written, the cache ends at {len(cells)}")
        cells.append(_Cell(value, {scheduled.seq_id}))
        self.num_free -= 1

    def _drop(self, scheduled: ScheduledSequence, length: int) -> None:
        self._give_up(scheduled.seq_id, length)

    def _length(self, seq_id: int) -> int:
        return len(self._cells[seq_id])

    def _has_room(self, batch: ScheduledBatch) -> bool:
        num_drafts = sum(scheduled.num_draft_tokens for scheduled in batch.sequences)
        return batch.num_tokens * batch.num_steps + num_drafts <= self.num_free


class FakeSlotExecutor(FakeCellExecutor):
    """Slots of a fixed size: cells that are never shared."""

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Slots share nothing."""
        raise ContractError(f"share_prefix({source}, {target}, {num_tokens}) between slots")

    def _has_room(self, batch: ScheduledBatch) -> bool:
        return all(
            scheduled.start + len(scheduled.token_ids) + scheduled.num_draft_tokens
            <= self.traits.slot_tokens + 1 - batch.num_steps
            for scheduled in batch.sequences
        )


def create_fake_executor(traits: ExecutorTraits) -> FakeExecutor:
    """The fake of the traits' layout."""
    kinds = {
        MemoryLayout.PAGED: FakePagedExecutor,
        MemoryLayout.CELLS: FakeCellExecutor,
        MemoryLayout.SLOTS: FakeSlotExecutor,
    }
    return kinds[traits.layout](traits)
