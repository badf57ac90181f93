"""The CPU's paged attentions, step by step, against plain attention in float64."""

import dataclasses

import pytest
import torch
from backplane_torch.engine.devices.attention import AttentionShape, Stretch
from backplane_torch.engine.devices.cpu_attention import CpuAttention
from backplane_torch.engine.devices.native_attention import native_attention
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


def check_every_token(kernel, shape, life, *, dtype, block_size, seed):
    """Live a life, with NaN wherever nobody has written."""
    generator = torch.Generator().manual_seed(seed)
    told, num_blocks = stories(shape, life, block_size, generator, dtype)
    sinks = (
        torch.randn(shape.num_query_heads, generator=generator).to(dtype)
        if shape.has_sinks
        else None
    )
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


def compiled_attention(dtype, block_size):
    kernel = native_attention(dtype, block_size)
    if kernel is None:
        pytest.skip("needs the compiled library, and for bfloat16 a processor that multiplies it")
    return kernel


@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=150, deadline=None)
@given(
    shape=shapes, life=lives, block_size=st.sampled_from([1, 2, 5, 16]), seed=st.integers(0, 2**31)
)
def test_every_token_of_every_step_sees_what_it_should(dtype, shape, life, block_size, seed):
    kernel = CpuAttention(dtype, block_size)
    check_every_token(kernel, shape, life, dtype=dtype, block_size=block_size, seed=seed)


@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=75, deadline=None)
@given(shape=shapes, life=lives, block_size=st.sampled_from([16, 32]), seed=st.integers(0, 2**31))
def test_the_compiled_attention_sees_the_same(dtype, shape, life, block_size, seed):
    kernel = compiled_attention(dtype, block_size)
    check_every_token(kernel, shape, life, dtype=dtype, block_size=block_size, seed=seed)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize(
    ("num_kv_heads", "sharing", "widths"), [(2, 3, (64, 64)), (1, 40, (32, 48)), (2, 1, (9, 7))]
)
def test_contexts_longer_than_what_is_attended_at_once(
    *, dtype, window, num_kv_heads, sharing, widths
):
    shape = AttentionShape(
        num_query_heads=num_kv_heads * sharing,
        num_kv_heads=num_kv_heads,
        key_width=widths[0],
        value_width=widths[1],
        scaling=0.2,
        window=window,
    )
    life = [[150, 1, 1], [1, 130, 1], [129, 0, 1], [1, 1, 1]]
    kernel = compiled_attention(dtype, 32)
    check_every_token(kernel, shape, life, dtype=dtype, block_size=32, seed=1)


def test_a_token_in_several_tensors_of_the_same_memory_is_read_by_their_strides():
    shape = AttentionShape(
        num_query_heads=4, num_kv_heads=2, key_width=16, value_width=16, scaling=0.25
    )
    kernel = compiled_attention(torch.float32, 16)
    fused = torch.randn(5, 8, 16, generator=torch.Generator().manual_seed(0)).transpose(0, 1)
    stretch = Stretch(begin=0, end=5, start=0, block_table=[1])

    def attend(*parts):
        plan = kernel.plan([stretch], 0, None)
        query, key, value = parts
        cache = kernel.create_cache(shape, 2)
        return kernel.attend(shape, cache, plan, query=query, key=key, value=value, sinks=None)

    parts = fused[:4], fused[4:6], fused[6:]
    apart = [part.contiguous() for part in parts]
    columns = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in parts]
    assert torch.equal(attend(*parts), attend(*apart))
    assert torch.equal(attend(*columns), attend(*apart))


def test_types_that_the_compiled_attention_would_misread_are_refused():
    shape = AttentionShape(
        num_query_heads=2, num_kv_heads=1, key_width=16, value_width=16, scaling=0.25
    )
    kernel = compiled_attention(torch.float32, 16)
    plan = kernel.plan([Stretch(begin=0, end=1, start=0, block_table=[0])], 1, None)
    query, key = torch.zeros(2, 1, 16), torch.zeros(1, 1, 16)
    with pytest.raises(
        ValueError, match=r"values of torch\.bfloat16 for a cache of torch\.float32"
    ):
        kernel.attend(
            *(shape, kernel.create_cache(shape, 1), plan),
            query=query,
            key=key,
            value=key.bfloat16(),
            sinks=None,
        )


def test_other_types_and_blocks_that_are_no_whole_groups_are_left_to_torch():
    assert native_attention(torch.float16, 32) is None
    assert native_attention(torch.float32, 24) is None


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
