"""The CPU's paged attention, step by step, against plain attention in float64."""

import dataclasses

import pytest
import torch
from backplane_torch.engine.devices.attention import AttentionShape, Stretch
from backplane_torch.engine.devices.cpu_attention import CpuAttention
from hypothesis import given, settings
from hypothesis import strategies as st

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
shapes = st.builds(
    lambda kv_heads, sharing, **rest: AttentionShape(
        num_query_heads=kv_heads * sharing, num_kv_heads=kv_heads, **rest
    ),
    kv_heads=st.integers(1, 3),
    sharing=st.integers(1, 3),
    key_width=st.sampled_from([8, 16]),
    value_width=st.sampled_from([8, 24]),
    scaling=st.sampled_from([0.25, 0.4]),
    window=st.none() | st.integers(1, 12),
    softcap=st.none() | st.just(2.0),
    has_sinks=st.booleans(),
)
# Of each sequence, how many tokens its steps compute; 0 is a step in which it waits.
lives = st.lists(
    st.lists(st.just(1) | st.integers(0, 14), min_size=1, max_size=5), min_size=1, max_size=6
)


@dataclasses.dataclass
class Story:
    """A sequence's queries, keys and values, and where its blocks are."""

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    table: list[int]
    computed: int = 0


def expected(shape: AttentionShape, story: Story, position: int, sinks: torch.Tensor | None):
    """[query heads, value width] of one token."""
    first = 0 if shape.window is None else max(0, position - shape.window + 1)
    sharing = shape.num_query_heads // shape.num_kv_heads
    keys = story.keys[:, first : position + 1].double().repeat_interleave(sharing, 0)
    values = story.values[:, first : position + 1].double().repeat_interleave(sharing, 0)
    query = story.queries[:, position].double()
    scores = torch.einsum("hd,hkd->hk", query, keys) * shape.scaling
    if shape.softcap is not None:
        scores = shape.softcap * torch.tanh(scores / shape.softcap)
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None]], -1)
    shares = scores.softmax(-1)[:, : keys.shape[1]]
    return torch.einsum("hk,hkv->hv", shares, values)


def stories(shape, life, block_size, generator, dtype):
    """Of random numbers, in shuffled blocks; returned with how many blocks there are."""
    lengths = [max(1, sum(steps)) for steps in life]
    needed = [-(-length // block_size) for length in lengths]
    num_blocks = sum(needed) + 3
    free = iter(torch.randperm(num_blocks, generator=generator).tolist())

    def drawn(heads, length, width):
        return torch.randn(heads, length, width, generator=generator).to(dtype)

    told = [
        Story(
            drawn(shape.num_query_heads, length, shape.key_width),
            drawn(shape.num_kv_heads, length, shape.key_width),
            drawn(shape.num_kv_heads, length, shape.value_width),
            [next(free) for _ in range(blocks)],
        )
        for length, blocks in zip(lengths, needed, strict=True)
    ]
    return told, num_blocks


def leave_behind(cache, story, window, block_size):
    """Give up the blocks that no later token sees; someone else's NaN is in them then."""
    first_seen = max(0, story.computed - window + 1)
    for index in range(min(first_seen // block_size, len(story.table))):
        if story.table[index] >= 0:
            cache.keys[:, story.table[index]] = torch.nan
            cache.values[:, story.table[index]] = torch.nan
            story.table[index] = -1


def compute(kernel, shape, cache, working, sinks):
    """One step; `working` are stories and how many tokens of each, decodes first."""
    stretches, begin = [], 0
    for story, count in working:
        stretches.append(
            Stretch(begin=begin, end=begin + count, start=story.computed, block_table=story.table)
        )
        begin += count
    num_decodes = sum(count == 1 for _, count in working)

    def rows(name):
        parts = [
            getattr(story, name)[:, story.computed : story.computed + count]
            for story, count in working
        ]
        return torch.cat(parts, dim=1)

    plan = kernel.plan(stretches, num_decodes, shape.window)
    return kernel.attend(
        *(shape, cache, plan),
        query=rows("queries"),
        key=rows("keys"),
        value=rows("values"),
        sinks=sinks,
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=150, deadline=None)
@given(
    shape=shapes, life=lives, block_size=st.sampled_from([1, 2, 5, 16]), seed=st.integers(0, 2**31)
)
def test_every_token_of_every_step_sees_what_it_should(dtype, shape, life, block_size, seed):
    generator = torch.Generator().manual_seed(seed)
    told, num_blocks = stories(shape, life, block_size, generator, dtype)
    sinks = (
        torch.randn(shape.num_query_heads, generator=generator).to(dtype)
        if shape.has_sinks
        else None
    )
    kernel = CpuAttention(dtype, block_size)
    cache = kernel.create_cache(shape, num_blocks)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    for step in range(max(map(len, life))):
        working = [
            (story, steps[step])
            for story, steps in zip(told, life, strict=True)
            if step < len(steps) and steps[step]
        ]
        working.sort(key=lambda pair: pair[1] != 1)
        if not working:
            continue
        output = compute(kernel, shape, cache, working, sinks)
        wanted = [
            expected(shape, story, story.computed + place, sinks)
            for story, count in working
            for place in range(count)
        ]
        assert output.is_contiguous()
        torch.testing.assert_close(
            output.double(), torch.stack(wanted), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )
        for story, count in working:
            story.computed += count
            if shape.window is not None:
                leave_behind(cache, story, shape.window, block_size)


def test_decodes_of_very_different_lengths_are_not_padded_to_the_longest():
    kernel = CpuAttention(torch.float32, 16)
    contexts = [20, 30, 2000, 2100]
    stretches = [
        Stretch(begin=row, end=row + 1, start=context - 1, block_table=list(range(200)))
        for row, context in enumerate(contexts)
    ]
    plan = kernel.plan(stretches, 4, None)
    assert [reading.mask.shape for reading in plan.decodes] == [
        (1, 2, 1, 32),
        (1, 2, 1, 2112),
    ]
