"""How much of a model's own caches fits, by numbers."""

import dataclasses

import hypothesis
import pytest
from backplane_core.backend import EngineSettings
from backplane_core.errors import BackendError
from backplane_torch.state_plan import StateShape, make_state_plan
from hypothesis import strategies as st

GROWING = StateShape(
    bytes_per_token=1024, bytes_per_sequence=0, num_vocabulary=32_000, max_positions=2048
)
STATES = StateShape(bytes_per_token=0, bytes_per_sequence=2**20, num_vocabulary=50_000)
ENCODED = dataclasses.replace(GROWING, reusable=False, scores_prompts=False)


def plan(shape, mib, **flags):
    return make_state_plan(shape, mib * 2**20, EngineSettings(**flags))


def test_plenty_of_memory_holds_all_that_may_run_and_be_kept():
    made = plan(GROWING, 4096)
    assert (made.running_sequences, made.retained_sequences) == (32, 32)
    assert made.cache_tokens == 64 * 2048
    assert (made.max_total_tokens, made.max_input_tokens) == (2048, 2047)
    assert made.batch_tokens == 512
    assert made.scored_tokens == 512
    assert made.limits.max_sequences == 32
    assert made.limits.cache_tokens == made.cache_tokens


def test_half_of_the_memory_is_used_where_nobody_says_otherwise():
    assert plan(GROWING, 32).cache_tokens == 16 * 1024
    assert plan(GROWING, 32, memory_fraction=0.25).cache_tokens == 8 * 1024
    assert plan(GROWING, 2).max_total_tokens == 1024


def test_what_is_asked_for_is_kept():
    made = plan(
        GROWING,
        32,
        max_batch_size=4,
        max_total_tokens=100,
        max_input_tokens=60,
        max_batch_prefill_tokens=64,
        max_batch_total_tokens=30_000,
        max_concurrent_requests=10,
    )
    assert (made.running_sequences, made.max_total_tokens, made.max_input_tokens) == (4, 100, 60)
    assert (made.batch_tokens, made.cache_tokens) == (64, 30_000)
    assert made.max_waiting_requests == 6


def test_a_step_has_room_for_all_that_run():
    assert plan(GROWING, 32, max_batch_size=40, max_batch_prefill_tokens=8).batch_tokens == 40


def test_states_bound_the_sequences_and_not_their_length():
    made = plan(STATES, 40)
    # 20 MiB: two states for each that runs.
    assert (made.running_sequences, made.retained_sequences) == (10, 0)
    assert made.max_total_tokens == 4096
    assert made.cache_tokens == 10 * 4096
    assert plan(STATES, 40, max_batch_size=4).retained_sequences == 4
    assert plan(STATES, 40, max_batch_size=9).retained_sequences == 2


def test_what_an_encoder_makes_is_kept_for_nobody():
    made = plan(ENCODED, 4096)
    assert made.retained_sequences == 0
    assert made.scored_tokens == 0
    assert made.cache_tokens == 32 * 2048


def test_both_are_counted_where_a_model_has_both():
    shape = dataclasses.replace(GROWING, bytes_per_sequence=2**20)
    made = plan(shape, 16, max_batch_size=2)
    # Of 8 MiB four go to the states of two, and the other four are for tokens.
    assert made.retained_sequences == 0
    assert made.cache_tokens == 4 * 1024
    assert plan(shape, 48).running_sequences == 6


@pytest.mark.parametrize(
    ("shape", "mib", "flags", "message"),
    [
        (GROWING, 8, {"max_batch_total_tokens": 9000}, "8 MiB are too little for a cache of 9000"),
        (GROWING, 0, {}, "0 MiB are too little for a cache of 2 tokens"),
        (GROWING, 99, {"max_total_tokens": 4096}, "the model sees 2048 tokens"),
        (GROWING, 1, {"max_total_tokens": 1024}, "but the cache holds 512 tokens"),
        (GROWING, 99, {"max_batch_size": 0}, "--max-batch-size is 0"),
        (GROWING, 99, {"max_total_tokens": 9, "max_input_tokens": 9}, "--max-input-tokens is 9"),
        (STATES, 40, {"max_batch_size": 11}, "20 MiB are too little for 11 sequences"),
        (STATES, 1, {}, "0 MiB are too little for 1 sequences, each with 1.0 MiB"),
    ],
)
def test_what_cannot_be_is_refused(shape, mib, flags, message):
    with pytest.raises(BackendError, match=message):
        plan(shape, mib, **flags)


@hypothesis.given(
    per_token=st.integers(0, 4096),
    per_sequence=st.integers(0, 2**20),
    free_bytes=st.integers(0, 2**30),
    positions=st.none() | st.integers(2, 100_000),
    reusable=st.booleans(),
)
def test_a_plan_stays_within_the_memory(per_token, per_sequence, free_bytes, positions, reusable):
    shape = StateShape(
        bytes_per_token=per_token,
        bytes_per_sequence=per_sequence,
        num_vocabulary=1000,
        max_positions=positions,
        reusable=reusable,
    )
    try:
        made = make_state_plan(shape, free_bytes, EngineSettings())
    except BackendError:
        # For a sequence of two tokens, half of this being for keys and values if there are both.
        assert free_bytes / 2 < 2 * (2 * per_sequence + 2 * per_token) + 2
        return
    states = per_sequence * (2 * made.running_sequences + made.retained_sequences)
    assert per_token * made.cache_tokens + states <= free_bytes / 2
    assert 1 <= made.max_input_tokens < made.max_total_tokens <= made.cache_tokens
    assert made.running_sequences <= made.batch_tokens
