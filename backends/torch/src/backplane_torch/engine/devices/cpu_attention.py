"""`CpuAttention`: paged attention in torch's own operations, for the CPU.

A layer's cache is head-major: what a gather of blocks brings is then in the order in which scaled
dot products read it.
"""

import dataclasses
from typing import Final

import torch
from torch.nn.functional import scaled_dot_product_attention

from backplane_torch.engine.devices.attention import AttentionKernel, AttentionShape, Stretch

# Decodes are attended together, padded to the longest, as long as that is so many times the
# shortest at most.
_MAX_PADDING: Final = 1.5
# A product more costs as much as so many positions of padding.
_FREE_PADDING: Final = 64


@dataclasses.dataclass(frozen=True)
class CpuCache:
    """A layer's keys and values, both [kv heads, blocks, block size, width]."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reading:
    """What is attended in one product: several decodes, or one prefill chunk.

    Attributes:
        rows: of the batch.
        blocks: those of each sequence one after the other, as many of each as of the longest.
        mask: added to the scores; decodes: [1, sequences, 1, context], chunk: [tokens, context].
    """

    rows: slice | torch.Tensor
    blocks: torch.Tensor
    mask: torch.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpuPlan:
    """Where a step's tokens are written, and what each reads.

    Attributes:
        slots: [tokens], where their keys and values go, counted over all blocks.
        fresh: blocks written for the first time and not filled: behind what is written they may
            hold NaN, which no mask would hide.
        decodes, prefills: what is read.
    """

    slots: torch.Tensor
    fresh: torch.Tensor | None
    decodes: list[_Reading]
    prefills: list[_Reading]


class CpuAttention(AttentionKernel[CpuCache, CpuPlan]):
    """For one dtype and block size."""

    def __init__(self, dtype: torch.dtype, block_size: int) -> None:
        self._dtype = dtype
        self._block_size = block_size

    def create_cache(self, shape: AttentionShape, num_blocks: int) -> CpuCache:
        """Memory that nobody has written to: the system counts its pages when they are used."""
        size = (shape.num_kv_heads, num_blocks, self._block_size)
        return CpuCache(
            torch.empty(*size, shape.key_width, dtype=self._dtype),
            torch.empty(*size, shape.value_width, dtype=self._dtype),
        )

    def plan(self, stretches: list[Stretch], num_decodes: int, window: int | None) -> CpuPlan:
        """Slots, blocks and masks of a step."""
        decodes, chunks = stretches[:num_decodes], stretches[num_decodes:]
        fresh = [block for stretch in stretches for block in self._fresh_block(stretch)]
        return CpuPlan(
            slots=torch.cat([self._decode_slots(decodes), *map(self._chunk_slots, chunks)]),
            fresh=torch.tensor(fresh) if fresh else None,
            decodes=[self._read_together(group, window) for group in _alike(decodes, window)],
            prefills=[self._read_alone(chunk, window) for chunk in chunks],
        )

    def attend(
        self,
        shape: AttentionShape,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """See `AttentionKernel`."""
        if plan.fresh is not None:
            cache.keys.index_fill_(1, plan.fresh, 0.0)
            cache.values.index_fill_(1, plan.fresh, 0.0)
        cache.keys.flatten(1, 2).index_copy_(1, plan.slots, key)
        cache.values.flatten(1, 2).index_copy_(1, plan.slots, value)
        heads, num_tokens = shape.num_kv_heads, query.shape[1]
        # Query heads that share a key head: [kv heads, sharing, tokens, width].
        grouped = query.unflatten(0, (heads, -1))
        output = query.new_empty(num_tokens, heads, grouped.shape[1], shape.value_width)
        if sinks is not None:
            sinks = sinks.view(heads, -1, 1, 1)
        for reading in plan.decodes:
            size = (heads, reading.mask.shape[1], reading.mask.shape[3], -1)
            keys = cache.keys.index_select(1, reading.blocks).view(size)
            values = cache.values.index_select(1, reading.blocks).view(size)
            # They are the length of its one query here, so that no key is repeated.
            queries = grouped[:, :, reading.rows].transpose(1, 2)
            own = None if sinks is None else sinks.transpose(1, 2)
            attended = _attend(
                *(shape, queries, keys, values),
                mask=reading.mask,
                sinks=own,
                fused=_fused_pays(queries),
            )
            output[reading.rows] = attended.transpose(0, 1)
        for reading in plan.prefills:
            size = (-1, grouped.shape[1], -1, -1)
            keys = cache.keys.index_select(1, reading.blocks).flatten(1, 2)
            values = cache.values.index_select(1, reading.blocks).flatten(1, 2)
            attended = _attend(
                shape,
                grouped[:, :, reading.rows],
                keys.unsqueeze(1).expand(size),
                values.unsqueeze(1).expand(size),
                mask=reading.mask,
                sinks=sinks,
                fused=True,
            )
            output[reading.rows] = attended.permute(2, 0, 1, 3)
        return output.view(num_tokens, -1, shape.value_width)

    # ── planning ─────────────────────────────────────────────────────────────────────────

    def _decode_slots(self, decodes: list[Stretch]) -> torch.Tensor:
        size = self._block_size
        slots = [
            decode.block_table[decode.start // size] * size + decode.start % size
            for decode in decodes
        ]
        return torch.tensor(slots, dtype=torch.long)

    def _chunk_slots(self, chunk: Stretch) -> torch.Tensor:
        size = self._block_size
        positions = torch.arange(chunk.start, chunk.context)
        return torch.tensor(chunk.block_table)[positions // size] * size + positions % size

    def _fresh_block(self, stretch: Stretch) -> list[int]:
        """Its last block, if that is begun and not filled in this step."""
        index, used = divmod(stretch.context, self._block_size)
        begun = used and stretch.start <= index * self._block_size
        return [stretch.block_table[index]] if begun else []

    def _read_together(self, decodes: list[Stretch], window: int | None) -> _Reading:
        """Each padded with its last block to as many blocks as the longest has."""
        size = self._block_size
        first_seen = [_first_seen(decode, window) for decode in decodes]
        tables = [
            decode.block_table[first // size : -(-decode.context // size)]
            for decode, first in zip(decodes, first_seen, strict=True)
        ]
        longest = max(map(len, tables))
        padded = [[*table, *table[-1:] * (longest - len(table))] for table in tables]
        positions = torch.arange(longest * size)
        begins = torch.tensor([first % size for first in first_seen]).unsqueeze(1)
        ends = torch.tensor(
            [
                decode.context - first // size * size
                for decode, first in zip(decodes, first_seen, strict=True)
            ]
        ).unsqueeze(1)
        hidden = (positions < begins) | (positions >= ends)
        return _Reading(
            rows=torch.tensor([decode.begin for decode in decodes]),
            blocks=torch.tensor(padded).flatten(),
            mask=self._mask(hidden)[None, :, None],
        )

    def _read_alone(self, chunk: Stretch, window: int | None) -> _Reading:
        size = self._block_size
        begin, end = _first_seen(chunk, window) // size, -(-chunk.context // size)
        queries = torch.arange(chunk.start, chunk.context).unsqueeze(1)
        keys = torch.arange(begin * size, end * size)
        hidden = keys > queries
        if window is not None:
            hidden |= keys <= queries - window
        return _Reading(
            rows=slice(chunk.begin, chunk.end),
            blocks=torch.tensor(chunk.block_table[begin:end]),
            mask=self._mask(hidden),
        )

    def _mask(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.zeros(hidden.shape, dtype=self._dtype).masked_fill_(hidden, -torch.inf)


def _first_seen(stretch: Stretch, window: int | None) -> int:
    """The first position that its first token sees."""
    return 0 if window is None else max(0, stretch.start - window + 1)


def _alike(decodes: list[Stretch], window: int | None) -> list[list[Stretch]]:
    """Groups of about equal contexts, shortest first."""
    groups: list[list[Stretch]] = []
    shortest = 0
    for decode in sorted(decodes, key=lambda one: one.context):
        seen = decode.context - _first_seen(decode, window)
        if not groups or seen > _MAX_PADDING * shortest + _FREE_PADDING:
            groups.append([])
            shortest = seen
        groups[-1].append(decode)
    return groups


def _fused_pays(queries: torch.Tensor) -> bool:
    """Whether torch's fused attention is the fastest for several sequences' decodes.

    In bfloat16 it takes 2.3 times as long as two products for 16 sequences; these round the scores
    to bfloat16 between them, as transformers' own eager attention does.
    """
    return queries.dtype is not torch.bfloat16 or queries.shape[1] == 1


def _attend(
    shape: AttentionShape,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    mask: torch.Tensor,
    sinks: torch.Tensor | None,
    fused: bool,
) -> torch.Tensor:
    """[kv heads, n, m, width] queries over [kv heads, n, context, width] keys and values.

    `fused` is by torch's one operation, if that can do what the layer asks.
    """
    if fused and shape.softcap is None and sinks is None:
        return scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=shape.scaling
        )
    scores = (query @ keys.transpose(-1, -2)).float() * shape.scaling
    if shape.softcap is not None:
        scores = torch.tanh(scores / shape.softcap) * shape.softcap
    scores += mask
    if sinks is not None:
        scores = torch.cat([scores, sinks.float().expand(*scores.shape[:-1], 1)], dim=-1)
    shares = torch.softmax(scores, dim=-1)
    if sinks is not None:
        shares = shares[..., :-1]
    return shares.to(values.dtype) @ values
