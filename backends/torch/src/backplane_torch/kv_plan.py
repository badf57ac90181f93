"""How much a paged model may take: blocks, lengths and batches from its layers and the free memory.

Pure arithmetic, without torch, so that every rule can be tested by numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

from backplane_core.backend import EngineSettings
from backplane_core.batching.executor import BlockGroup
from backplane_core.batching.group_blocks import most_held_blocks
from backplane_core.engine_plan import EnginePlan, counted, max_waiting_requests, scored_tokens
from backplane_core.errors import BackendError
from backplane_core.limit_flags import (
    check_cache_holds,
    max_input_tokens,
    max_total_tokens,
    model_sees,
    positive,
)

_MEMORY_SHARE: Final = 0.5
_DEFAULT_SEQUENCES: Final = 64
_TOKENS_PER_SEQUENCE: Final = 2048
_BATCH_TOKENS: Final = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Layers of one window.

    Attributes:
        num_layers: how many.
        bytes_per_token: of keys and values, over all of them.
        window: how many tokens one sees, itself included; None is all.
    """

    num_layers: int
    bytes_per_token: int
    window: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PagedShape:
    """What of a model matters to its memory.

    Attributes:
        groups: its layers; that without a window first, where there is one.
        max_positions: tokens it can see at once.
        num_vocabulary: numbers in a row of logits.
    """

    groups: tuple[LayerGroup, ...]
    max_positions: int
    num_vocabulary: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class KvPlan(EnginePlan):
    """The sizes of a cache, of which `cache_tokens` are those of the first group of blocks."""

    block_size: int
    block_groups: tuple[BlockGroup, ...]


def make_kv_plan(
    shape: PagedShape, free_bytes: int, engine: EngineSettings, block_size: int
) -> KvPlan:
    """Choose every size that was not asked for.

    Args:
        shape: the model.
        free_bytes: memory left after the weights.
        engine: the flags common to all backends.
        block_size: tokens per block.

    Raises:
        BackendError: a flag contradicts another, the model or the memory.
    """
    positive("--torch.block-size", block_size)
    running = positive("--max-batch-size", engine.max_batch_size) or _DEFAULT_SEQUENCES
    asked = positive("--max-batch-prefill-tokens", engine.max_batch_prefill_tokens)
    batch = max(running, asked or _BATCH_TOKENS)
    sizes = _Sizes(shape.groups, block_size, running, batch)
    asked_total = max_total_tokens(engine, shape.max_positions)
    num_blocks, why = _num_blocks(shape, sizes, free_bytes, engine)
    capacity = sizes.longest(num_blocks, shape.max_positions)
    check_cache_holds(asked_total, capacity)
    total = asked_total or capacity
    groups = tuple(
        BlockGroup(num_blocks=blocks, window=group.window)
        for group, blocks in zip(shape.groups, sizes.of_groups(num_blocks), strict=True)
    )
    return KvPlan(
        block_size=block_size,
        block_groups=groups,
        cache_tokens=num_blocks * block_size,
        max_total_tokens=total,
        max_input_tokens=max_input_tokens(total, engine),
        batch_tokens=batch,
        scored_tokens=scored_tokens(shape.num_vocabulary, batch),
        running_sequences=running,
        max_waiting_requests=max_waiting_requests(running, engine),
        why=f"{_told(groups, shape, sizes, num_blocks)} ({why}); {total} tokens per sequence "
        f"({model_sees(shape.max_positions, engine)}); {counted(running, 'sequence')} at a time, "
        f"{batch} tokens a step",
    )


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Blocks of all groups from those of the first."""

    groups: Sequence[LayerGroup]
    block_size: int
    running: int
    batch: int

    def of_groups(self, num_blocks: int) -> list[int]:
        """Blocks of each group, where the first has so many.

        A later one has a window: what all running sequences hold at most is enough, and more than
        the first it need not have.
        """
        return [
            min(num_blocks, self._most_held(group, self.running)) if index else num_blocks
            for index, group in enumerate(self.groups)
        ]

    def longest(self, num_blocks: int, max_positions: int) -> int:
        """Tokens of the longest sequence there is room for, at most `max_positions`.

        It may outgrow a group that holds what its window sees, but the first: what is told of a
        cache is that no sequence is longer.
        """
        bounds = [
            blocks * self.block_size
            for index, (group, blocks) in enumerate(
                zip(self.groups, self.of_groups(num_blocks), strict=True)
            )
            if not index or blocks < self._most_held(group, 1)
        ]
        return min([max_positions, *bounds])

    def _most_held(self, group: LayerGroup, num_sequences: int) -> int:
        """Blocks that so many sequences hold at most in a group with a window."""
        if group.window is None:
            raise ValueError("only the first group may be without a window")
        return most_held_blocks(group.window, self.block_size, num_sequences, self.batch)

    def bytes_of(self, num_blocks: int) -> int:
        """Memory of all groups."""
        return sum(
            blocks * self.block_size * group.bytes_per_token
            for blocks, group in zip(self.of_groups(num_blocks), self.groups, strict=True)
        )

    def fitting(self, num_bytes: float) -> int:
        """The most blocks of the first group whose memory, with the others', is within."""
        low, high = 0, max(1, int(num_bytes) // max(1, self.bytes_of(1))) * len(self.groups) + 1
        while self.bytes_of(high) <= num_bytes:
            high *= 2
        while high - low > 1:
            middle = (low + high) // 2
            if self.bytes_of(middle) <= num_bytes:
                low = middle
            else:
                high = middle
        return low


def _num_blocks(
    shape: PagedShape, sizes: _Sizes, free_bytes: int, engine: EngineSettings
) -> tuple[int, str]:
    """Blocks of the first group, and why so many."""
    size = sizes.block_size
    asked = positive("--max-batch-total-tokens", engine.max_batch_total_tokens)
    if asked is not None:
        usable = free_bytes * (engine.memory_fraction or 1.0)
        if (needed := sizes.bytes_of(-(-asked // size))) > usable:
            raise BackendError(
                f"a cache of {asked} tokens needs {needed / 2**30:.1f} GiB, but "
                f"{usable / 2**30:.1f} GiB are free",
                remedy=f"lower --max-batch-total-tokens; {sizes.fitting(usable) * size} would fit",
            )
        return -(-asked // size), "as asked"
    share = engine.memory_fraction or _MEMORY_SHARE
    fitting = sizes.fitting(free_bytes * share)
    if not fitting:
        raise BackendError(
            f"{free_bytes / 2**20:.0f} MiB of free memory hold no block of {size} tokens, "
            f"{sizes.bytes_of(1) / 2**10:.1f} KiB",
            remedy="free memory or choose a smaller model",
        )
    longest = engine.max_total_tokens or shape.max_positions
    per_sequence = min(longest, _TOKENS_PER_SEQUENCE)
    wanted = -(-max(longest, sizes.running * per_sequence) // size)
    if wanted <= fitting:
        return wanted, f"the model's length or {per_sequence} for each sequence"
    return fitting, f"{share:.0%} of {free_bytes / 2**30:.1f} GiB free memory"


def _told(groups: Sequence[BlockGroup], shape: PagedShape, sizes: _Sizes, num_blocks: int) -> str:
    """The cache in words."""
    parts = [
        f"{blocks.num_blocks * sizes.block_size} tokens of {layers.bytes_per_token / 1024:.1f} KiB "
        f"in {_layers(layers)}"
        for blocks, layers in zip(groups, shape.groups, strict=True)
    ]
    return f"cache of {' and '.join(parts)}, {sizes.bytes_of(num_blocks) / 2**20:.0f} MiB"


def _layers(group: LayerGroup) -> str:
    layers = counted(group.num_layers, "layer")
    if group.window is None:
        return layers
    return f"{layers} that {'sees' if group.num_layers == 1 else 'see'} {group.window} tokens"
