"""The fake executor's modelled memories: blocks, cells and slots."""

import dataclasses

from backplane_core.batching.executor import (
    ExecutorTraits,
    MemoryLayout,
    ScheduledBatch,
    ScheduledSequence,
)

from tests.core.batching.fake_executor import ContractError, FakeExecutor, key_values


class FakePagedExecutor(FakeExecutor):
    """Blocks that keep what was last written, whoever reads it, group by group.

    Every cell that a token may see must hold what its group has of the tokens up to there; every
    block that none may see must have been given up.
    """

    def __init__(self, traits: ExecutorTraits) -> None:
        super().__init__(traits)
        self._blocks = [[self._fresh() for _ in range(one.num_blocks)] for one in traits.groups]

    def poison(self, group: int, blocks: list[int]) -> None:
        """Nobody may read these before writing to them."""
        for block in blocks:
            self._blocks[group][block] = self._fresh()

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Block tables say it all."""
        raise ContractError(f"share_prefix({source}, {target}, {num_tokens}) of a paged executor")

    def _fresh(self) -> list[int | None]:
        return [None] * self.traits.block_size

    def _block(self, scheduled: ScheduledSequence, group: int, position: int) -> list[int | None]:
        table, index = scheduled.block_tables[group], position // self.traits.block_size
        if index >= len(table) or table[index] < 0:
            raise ContractError(f"no block for position {position} in group {group}")
        return self._blocks[group][table[index]]

    def _read(self, scheduled: ScheduledSequence, token_ids: list[int]) -> list[int]:
        cells = key_values(token_ids, scheduled.sequence.request.adapter)
        for group, traits in enumerate(self.traits.groups):
            first = 0 if traits.window is None else max(0, len(cells) + 1 - traits.window)
            for position in range(first, len(cells)):
                block = self._block(scheduled, group, position)
                value = block[position % self.traits.block_size]
                if value != cells[position] + group:
                    raise ContractError(f"position {position} of group {group} holds {value}")
        return cells

    def _write(self, scheduled: ScheduledSequence, position: int, value: int) -> None:
        for group in range(len(self._blocks)):
            block = self._block(scheduled, group, position)
            block[position % self.traits.block_size] = value + group

    def _drop(self, scheduled: ScheduledSequence, length: int) -> None:
        """Nothing: rejected drafts stay in their blocks until they are overwritten."""

    def _length(self, seq_id: int) -> int:
        raise ContractError(f"hand_over({seq_id}) of a paged executor")

    def _has_room(self, batch: ScheduledBatch) -> bool:
        for scheduled in batch.sequences:
            for traits, table in zip(self.traits.groups, scheduled.block_tables, strict=True):
                self._check_table(table, scheduled.start, traits.window)
        return True

    def _check_table(self, table: list[int], start: int, window: int | None) -> None:
        held = [block for block in table if block >= 0]
        if len(set(held)) != len(held):
            raise ContractError("a block stands twice in a block table")
        size = self.traits.block_size
        # By blocks, so that others can go on where the last full one ends.
        seen_from = 0 if window is None else max(0, start - start % size + 1 - window)
        if len(table) - len(held) != seen_from // size:
            raise ContractError(f"{table} at {start}, where a token sees {window}")


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

    def _read(self, scheduled: ScheduledSequence, token_ids: list[int]) -> list[int]:
        cells, length = self._cells[scheduled.seq_id], len(token_ids)
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
