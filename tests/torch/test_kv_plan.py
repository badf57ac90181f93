"""Sizes of a paged cache, rule by rule, and on random shapes that it is never more than allowed."""

import pytest
from backplane_core.backend import EngineSettings
from backplane_core.batching.memory import Retention
from backplane_core.batching.paged_memory import PagedMemory
from backplane_core.errors import BackendError
from backplane_torch.engine.paged.paged_model import traits_of
from backplane_torch.kv_plan import KvPlan, LayerGroup, PagedShape, make_kv_plan
from hypothesis import given
from hypothesis import strategies as st

MIB, GIB = 2**20, 2**30
# 32 layers of 8 heads of 128 numbers, in two bytes.
SEVEN_BILLION = LayerGroup(num_layers=32, bytes_per_token=32 * 2 * 8 * 128 * 2)


def shape(*groups: LayerGroup, max_positions: int = 8192) -> PagedShape:
    return PagedShape(groups=groups, max_positions=max_positions, num_vocabulary=32_000)


def plan(
    *groups: LayerGroup,
    free: int = 16 * GIB,
    block_size: int = 16,
    max_positions: int = 8192,
    **flags: float,
) -> KvPlan:
    engine = EngineSettings(**flags)
    return make_kv_plan(shape(*groups, max_positions=max_positions), free, engine, block_size)


def num_bytes(made: KvPlan, groups: tuple[LayerGroup, ...]) -> int:
    return sum(
        blocks.num_blocks * made.block_size * group.bytes_per_token
        for blocks, group in zip(made.block_groups, groups, strict=True)
    )


def test_a_large_model_gets_half_of_the_free_memory() -> None:
    made = plan(SEVEN_BILLION)
    assert made.cache_tokens == 8 * GIB // SEVEN_BILLION.bytes_per_token
    assert "50% of 16.0 GiB free memory" in made.why
    assert f"cache of {made.cache_tokens} tokens of 128.0 KiB in 32 layers, 8192 MiB" in made.why


def test_a_small_model_gets_what_its_sequences_can_use() -> None:
    small = LayerGroup(num_layers=2, bytes_per_token=512)
    assert plan(small, max_positions=1024).cache_tokens == 64 * 1024
    assert plan(small, max_batch_size=4).cache_tokens == 8192  # one of full length
    assert plan(small, max_batch_size=8).cache_tokens == 8 * 2048


def test_what_is_asked_for_is_taken_in_whole_blocks() -> None:
    made = plan(SEVEN_BILLION, max_batch_total_tokens=1001)
    assert (made.cache_tokens, made.max_total_tokens) == (1008, 1008)
    assert "as asked" in made.why


def test_the_memory_fraction_is_the_share() -> None:
    made = plan(SEVEN_BILLION, memory_fraction=0.25)
    assert made.cache_tokens == 4 * GIB // SEVEN_BILLION.bytes_per_token


def test_windowed_layers_hold_what_running_sequences_see() -> None:
    full = LayerGroup(num_layers=5, bytes_per_token=5 * 4096)
    windowed = LayerGroup(num_layers=25, bytes_per_token=25 * 4096, window=512)
    made = plan(full, windowed, max_batch_size=2, free=64 * GIB, max_positions=65_536)
    # Each sequence has its window and two blocks that are begun, and all together a chunk of 512.
    expected = [4096, 2 * (512 // 16 + 2) + 512 // 16]
    assert [group.num_blocks for group in made.block_groups] == expected
    assert "25 layers that see 512 tokens" in made.why


def test_a_window_longer_than_the_cache_changes_nothing() -> None:
    windowed = LayerGroup(num_layers=1, bytes_per_token=4096, window=100_000)
    full = LayerGroup(num_layers=1, bytes_per_token=4096)
    first, second = plan(full, windowed).block_groups
    assert first.num_blocks == second.num_blocks


def test_the_sentence_counts_a_single_layer() -> None:
    one = LayerGroup(num_layers=1, bytes_per_token=205)
    assert " of 0.2 KiB in 1 layer, " in plan(one).why
    windowed = LayerGroup(num_layers=1, bytes_per_token=205, window=64)
    assert "in 1 layer that sees 64 tokens, " in plan(windowed).why


def test_the_sentence_counts_a_single_sequence() -> None:
    assert "; 1 sequence at a time, " in plan(SEVEN_BILLION, max_batch_size=1).why


def test_the_sentence_tells_stretched_positions() -> None:
    assert "(the model sees 8192 tokens);" in plan(SEVEN_BILLION).why
    assert "(the model sees 8192 tokens);" in plan(SEVEN_BILLION, rope_factor=1.0).why
    stretched = plan(SEVEN_BILLION, rope_factor=2.5)
    assert "(the model sees 8192 tokens, stretched by 2.5);" in stretched.why


def test_no_sequence_is_longer_than_the_cache() -> None:
    windowed = LayerGroup(num_layers=2, bytes_per_token=4096, window=64)
    assert plan(windowed, max_batch_total_tokens=512).max_total_tokens == 512
    full = LayerGroup(num_layers=2, bytes_per_token=4096)
    assert plan(full, windowed, max_batch_total_tokens=512).max_total_tokens == 512


def test_scored_rows_of_logits_stay_within_64_mib() -> None:
    assert plan(SEVEN_BILLION, max_batch_prefill_tokens=4096).scored_tokens == 524
    assert plan(SEVEN_BILLION).scored_tokens == 512


def test_a_step_has_room_for_every_sequence() -> None:
    assert plan(SEVEN_BILLION, max_batch_prefill_tokens=16, max_batch_size=32).batch_tokens == 32


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_batch_total_tokens": 200_000}, "needs 24.4 GiB, but 16.0 GiB are free"),
        ({"max_total_tokens": 10_000}, "the model sees 8192 tokens"),
        ({"max_total_tokens": 4096, "max_batch_total_tokens": 1024}, "the cache holds 1024 tokens"),
        ({"max_input_tokens": 8192}, "must be below --max-total-tokens, 8192"),
        ({"max_batch_size": 0}, "--max-batch-size is 0"),
        ({"block_size": 0}, "--torch.block-size is 0"),
        ({"free": 1 * MIB}, "1 MiB of free memory hold no block"),
        ({"max_total_tokens": 1}, "no room for a prompt and an answer"),
    ],
)
def test_contradictions_are_named(flags: dict[str, int], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        plan(SEVEN_BILLION, **flags)


def test_the_error_of_too_large_a_cache_names_one_that_fits() -> None:
    with pytest.raises(BackendError) as raised:
        plan(SEVEN_BILLION, max_batch_total_tokens=200_000)
    fitting = int((raised.value.remedy or "").split("; ")[1].split()[0])
    assert plan(SEVEN_BILLION, max_batch_total_tokens=fitting).cache_tokens == fitting
    with pytest.raises(BackendError):
        plan(SEVEN_BILLION, max_batch_total_tokens=fitting + 1)


layer_groups = st.builds(
    LayerGroup,
    num_layers=st.integers(1, 40),
    bytes_per_token=st.integers(1, 10_000),
    window=st.integers(1, 5000),
)


@given(
    first=layer_groups,
    is_full=st.booleans(),
    others=st.lists(layer_groups, max_size=2),
    free=st.integers(0, 2**26),
    block_size=st.integers(1, 64),
    running=st.integers(1, 64),
    batch=st.integers(1, 2048),
)
def test_any_plan_fits_the_memory_and_its_longest_sequence(
    *,
    first: LayerGroup,
    is_full: bool,
    others: list[LayerGroup],
    free: int,
    block_size: int,
    running: int,
    batch: int,
) -> None:
    if is_full:
        first = LayerGroup(num_layers=first.num_layers, bytes_per_token=first.bytes_per_token)
    groups = (first, *others)
    flags = {"max_batch_size": running, "max_batch_prefill_tokens": batch}
    try:
        made = plan(*groups, free=free, block_size=block_size, **flags)
    except BackendError:
        one_block = sum(group.bytes_per_token for group in groups) * block_size
        assert free / 2 < 2 * one_block  # of one token there is no sequence: it leaves no answer
        return
    assert num_bytes(made, groups) <= free / 2
    traits = traits_of(made)
    memory = PagedMemory(traits, NoVerbs(), Retention(0, 0))
    assert memory.max_sequence_tokens >= made.max_total_tokens
    assert made.cache_tokens >= made.max_total_tokens


class NoVerbs:
    """Nobody computes here."""

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None: ...
    def trim(self, seq_id: int, num_tokens: int) -> None: ...
    def release(self, seq_id: int) -> None: ...
    def hand_over(self, seq_id: int, num_tokens: int) -> None: ...
