"""Chunks that decoding sequences wait for: as long as lately took the time they may take."""

import itertools

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.batching.prefill_chunk import PrefillChunk
from backplane_core.batching.scheduler_settings import PrefillPace
from hypothesis import given
from hypothesis import strategies as st

from tests.core.batching.harness import Engine, make_traits

CHUNK_S = 0.25
DECODE_S = 0.03


def chunk_of(max_tokens, tokens_per_s):
    return PrefillChunk(max_tokens, PrefillPace(chunk_s=CHUNK_S, tokens_per_s=tokens_per_s))


def go_on(chunk, token_s, times=1):
    """Whole chunks at this speed; how long each is."""
    lengths = []
    for _ in range(times):
        lengths.append(chunk.num_tokens)
        chunk.took(chunk.num_tokens, chunk.num_tokens * token_s)
    return lengths


@pytest.mark.parametrize(
    ("tokens_per_s", "num_tokens"),
    [(5000, 512), (800, 192), (560, 128), (80, 20), (8, 16), (0.001, 16), (float("inf"), 512)],
)
def test_the_first_is_as_long_as_the_first_estimate_says(tokens_per_s, num_tokens):
    assert chunk_of(512, tokens_per_s).num_tokens == num_tokens
    assert chunk_of(100, tokens_per_s).num_tokens == min(100, num_tokens)
    assert chunk_of(7, tokens_per_s).num_tokens == 7


def test_without_a_pace_it_is_always_as_long_as_it_may_be():
    chunk = PrefillChunk(48, None)
    assert go_on(chunk, 1.0, times=4) == [48] * 4


def test_what_lasts_is_followed_from_the_second_on_up_and_down():
    chunk = chunk_of(1024, 1024)
    assert go_on(chunk, 1 / 1024, times=3) == [256, 256, 256]
    assert go_on(chunk, 1 / 256, times=6) == [256, 256, 64, 64, 64, 64]
    assert go_on(chunk, 1 / 1024, times=7) == [64, 64, 96, 128, 160, 192, 224]


def test_steps_of_less_than_half_a_chunk_tell_nothing():
    chunk = chunk_of(512, 800)
    for _ in range(10):
        chunk.took(95, CHUNK_S)
    assert chunk.num_tokens == 192
    for _ in range(2):
        chunk.took(96, 96 / 200)
    assert chunk.num_tokens < 192


def test_unless_even_they_take_too_long():
    chunk = chunk_of(512, 5000)
    lengths = []
    for _ in range(12):
        chunk.took(min(200, chunk.num_tokens), min(200, chunk.num_tokens) * 0.003)
        lengths.append(chunk.num_tokens)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 512
    assert lengths[-1] == 64


token_seconds = st.integers(1, 2**20).map(lambda number: number / 2**17)  # 7.6 µs to 8 s
max_tokens = st.integers(1, 2048)


@given(
    max_tokens=max_tokens,
    tokens_per_s=st.floats(1e-6, 1e9),
    steps=st.lists(st.tuples(st.integers(1, 2048), st.floats(0, 1e6)), max_size=40),
)
def test_it_is_never_longer_than_it_may_be_and_never_too_short_to_get_on(
    max_tokens, tokens_per_s, steps
):
    chunk = chunk_of(max_tokens, tokens_per_s)
    for num_tokens, step_s in steps:
        chunk.took(num_tokens, step_s)
        assert min(16, max_tokens) <= chunk.num_tokens <= max_tokens


@given(max_tokens=max_tokens, first_s=token_seconds, token_s=token_seconds)
def test_it_comes_to_what_fills_the_time_from_above_and_below(max_tokens, first_s, token_s):
    chunk = chunk_of(max_tokens, 1 / first_s)
    lengths = go_on(chunk, token_s, times=60)
    assert lengths in (sorted(lengths), sorted(lengths, reverse=True))
    num_tokens = chunk.num_tokens
    assert num_tokens * token_s <= 1.001 * CHUNK_S or num_tokens == min(16, max_tokens)
    assert (num_tokens + 32) * token_s > 0.999 * CHUNK_S or num_tokens == max_tokens


@given(max_tokens=max_tokens, token_s=token_seconds, outlier_s=st.floats(0, 1e6))
def test_one_that_was_slow_or_fast_by_accident_changes_nothing(max_tokens, token_s, outlier_s):
    chunk = chunk_of(max_tokens, 1 / token_s)
    usual = go_on(chunk, token_s, times=100)[-1]
    chunk.took(usual, outlier_s)
    assert go_on(chunk, token_s, times=10) == [usual] * 10


@given(max_tokens=max_tokens, speeds=st.lists(token_seconds, min_size=1, max_size=30))
def test_it_stays_among_the_speeds_there_were(max_tokens, speeds):
    chunk = chunk_of(max_tokens, 1 / speeds[0])
    for token_s in speeds:
        go_on(chunk, token_s)
    bounds = [chunk_of(max_tokens, 0.999 / max(speeds)), chunk_of(max_tokens, 1.001 / min(speeds))]
    assert bounds[0].num_tokens <= chunk.num_tokens <= bounds[1].num_tokens


@pytest.mark.parametrize("wrong", [{"chunk_s": 0.0}, {"tokens_per_s": 0.0}, {"chunk_s": -1.0}])
def test_a_pace_that_nothing_fits_is_refused(wrong):
    with pytest.raises(ValueError, match="is not above 0"):
        PrefillPace(**{"chunk_s": 0.2, "tokens_per_s": 100.0, **wrong})


# ── in an engine ─────────────────────────────────────────────────────────────────────────────


class TimedEngine(Engine):
    """Its clock goes on by what steps take: a token behind 4,000 twice what the first one does."""

    def __init__(self, tokens_per_s, *, estimate, **traits):
        fields = {"max_batch_tokens": 512, "max_sequences": 32, "mixed_prefill": False, **traits}
        super().__init__(
            make_traits(MemoryLayout.CELLS, cache_tokens=16384, slot_tokens=8192, **fields),
            prefill_pace=PrefillPace(chunk_s=CHUNK_S, tokens_per_s=estimate),
        )
        self.tokens_per_s = tokens_per_s
        self.computes = self.executor.execute
        self.executor.execute = self.execute
        self.chunks = []  # while others decode: how many tokens, how many seconds

    def execute(self, batch):
        step_s = DECODE_S if batch.num_decodes else 0.0
        for one in batch.sequences[batch.num_decodes :]:
            positions = range(one.start, one.start + len(one.token_ids))
            step_s += sum(1 + position / 4000 for position in positions) / self.tokens_per_s
        if batch.num_prefill_tokens and self.runner._scheduler._decodes:
            self.chunks.append((batch.num_prefill_tokens, step_s))
        self.clock.now_s += step_s
        return self.computes(batch)

    def gaps(self, name, until):
        """The seconds between a stream's tokens until something is so."""
        times_s = []
        while not until():
            num_tokens = len(self.answer(name).token_ids)
            self.step()
            if len(self.answer(name).token_ids) > num_tokens:
                times_s.append(self.clock.now_s)
        return [later - earlier for earlier, later in itertools.pairwise(times_s)]


def prompt(num_tokens, first):
    return [first, *(2 + (first * 7 + 5 * index) % 60 for index in range(num_tokens - 1))]


def streaming(engine, number=16):
    for index in range(number):
        engine.submit(f"stream {index}", prompt(20, index), 400, ignore_eos=True)
    engine.until(lambda: len(engine.answer(f"stream {number - 1}").token_ids) > 2)


@pytest.mark.parametrize("mixed", [True, False])
def test_a_long_prompt_among_streams_makes_no_gap_beyond_a_chunks_time(mixed):
    engine = TimedEngine(1200.0, estimate=1200.0, mixed_prefill=mixed)
    streaming(engine)
    engine.submit("long", prompt(4000, 50), 4, ignore_eos=True)
    gaps = engine.gaps("stream 0", lambda: engine.answer("long").token_ids)
    # A chunk is as long as the last ones took: a prompt's next is behind more cells than these.
    assert max(gaps) < 1.15 * CHUNK_S + DECODE_S
    first, *_, before_last, _ = engine.chunks
    assert first[0] >= 288
    assert before_last[0] <= 160
    assert before_last[1] > 0.7 * CHUNK_S


@pytest.mark.parametrize("estimate", [300.0, 3000.0])
def test_a_wrong_estimate_at_the_start_is_forgotten(estimate):
    engine = TimedEngine(1200.0, estimate=estimate)
    streaming(engine)
    for index in range(12):
        engine.submit(f"prompt {index}", prompt(400, 40 + index), 1)
    engine.until(lambda: engine.answer("prompt 11").token_ids)
    sizes = [num_tokens for num_tokens, _ in engine.chunks]
    assert sizes[0] == {300.0: 64, 3000.0: 512}[estimate]
    assert sizes[10] in (256, 288)


def test_while_nobody_decodes_chunks_are_as_large_as_the_batch():
    engine = TimedEngine(10.0, estimate=10.0)
    engine.submit("long", prompt(1100, 1), 30, ignore_eos=True)
    engine.until(lambda: engine.answer("long").token_ids)
    assert [batch.num_tokens for batch in engine.executor.batches] == [512, 512, 76]
    engine.submit("late", prompt(40, 2), 1)
    engine.until(lambda: engine.answer("late").token_ids)
    assert [num_tokens for num_tokens, _ in engine.chunks] == [16, 16, 8]
