"""Requests that arrive together and begin alike: one computes the beginning, the others wait."""

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.errors import GenerationError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
SHARING = [PAGED, CELLS]
COMMON = [1 + (7 * index + index // 90) % 90 for index in range(1180)]
# No gain of fewer tokens is waited for.
LEAST = 32


def prompt_of(number, num_common=60, num_own=10):
    """A common beginning, then tokens that differ from the first one on."""
    return [*COMMON[:num_common], *(1 + (31 * number + index) % 90 for index in range(num_own))]


def long_traits(layout, **changes):
    fields = {"max_sequences": 20, "cache_tokens": 8192, "slot_tokens": 2048}
    return make_traits(layout, **{**fields, **changes})


def short_traits(layout, **changes):
    return make_traits(layout, **{"max_batch_tokens": 256, "cache_tokens": 512, **changes})


def submit_all(engine, count, **fields):
    for number in range(count):
        engine.submit(f"r{number}", prompt_of(number), 6, ignore_eos=True, **fields)


def num_started(engine, count):
    return sum(bool(engine.answer(f"r{number}").token_ids) for number in range(count))


@pytest.mark.parametrize(("layout", "num_again"), [(PAGED, 1180 % 16), (CELLS, 0)])
@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize(
    ("max_batch_tokens", "tuning"), [(2048, {}), (512, {}), (512, {"max_prefill_chunk": 256})]
)
def test_a_long_prefix_is_computed_once(layout, num_again, mixed, max_batch_tokens, tuning):
    block_size = 16 if layout is PAGED else 1
    traits = long_traits(
        layout, block_size=block_size, mixed_prefill=mixed, max_batch_tokens=max_batch_tokens
    )
    engine = Engine(traits, **tuning)
    engine.submit("decoding", [90, 89, 88], 60, ignore_eos=True)
    engine.step()
    before = engine.stats.num_prefilled_tokens
    for number in range(16):
        prompt = prompt_of(number, num_common=1180, num_own=80)
        engine.submit(f"r{number}", prompt, 4, ignore_eos=True)
    engine.run()
    engine.check_alone()
    # Of a block that is filled in part, that part is nobody else's.
    expected = 1180 + 16 * 80 + 15 * num_again
    assert engine.stats.num_prefilled_tokens - before == expected


@pytest.mark.parametrize("layout", SHARING)
def test_those_that_waited_start_together_in_the_next_step(layout):
    engine = Engine(short_traits(layout))
    submit_all(engine, 5)
    engine.run()
    assert [engine.answer(f"r{number}").steps[0] for number in range(5)] == [1, 2, 2, 2, 2]


@pytest.mark.parametrize("layout", SHARING)
def test_a_prompt_that_begins_otherwise_shares_the_step(layout):
    engine = Engine(short_traits(layout))
    engine.submit("other", [90, *prompt_of(0)], 6, ignore_eos=True)
    submit_all(engine, 2)
    engine.step()
    assert engine.answer("other").token_ids
    assert num_started(engine, 2) == 1


@pytest.mark.parametrize("layout", SHARING)
@pytest.mark.parametrize(("num_common", "num_at_once"), [(LEAST - 1, 2), (LEAST, 1)])
def test_for_little_no_request_starts_later(layout, num_common, num_at_once):
    engine = Engine(short_traits(layout))
    for number in range(2):
        engine.submit(f"r{number}", prompt_of(number, num_common), 6, ignore_eos=True)
    engine.step()
    assert num_started(engine, 2) == num_at_once


@pytest.mark.parametrize("layout", SHARING)
@pytest.mark.parametrize(("num_tokens", "num_at_once"), [(LEAST, 2), (LEAST + 1, 1)])
def test_of_equal_prompts_the_last_token_counts_for_nothing(layout, num_tokens, num_at_once):
    engine = Engine(short_traits(layout))
    for number in range(2):
        engine.submit(f"r{number}", COMMON[:num_tokens], 6, ignore_eos=True)
    engine.step()
    assert num_started(engine, 2) == num_at_once


def test_a_block_that_is_not_full_by_then_is_not_waited_for():
    engine = Engine(short_traits(PAGED, block_size=64))
    submit_all(engine, 2)  # 60 tokens in common
    engine.step()
    assert num_started(engine, 2) == 2


@pytest.mark.parametrize(
    ("layout", "traits"),
    [
        (SLOTS, {}),
        (CELLS, {"shareable": False}),
        (CELLS, {"trimmable": False}),
        (PAGED, {"shareable": False}),
    ],
)
def test_where_nothing_would_be_found_nobody_waits(layout, traits):
    engine = Engine(short_traits(layout, slot_tokens=128, **traits))
    submit_all(engine, 3)
    engine.step()
    assert num_started(engine, 3) == 3


@pytest.mark.parametrize("layout", SHARING)
@pytest.mark.parametrize(("begins_alike", "num_in_batch"), [(True, 1), (False, 2)])
def test_a_later_chunk_is_waited_for_if_all_before_it_is_alike(layout, begins_alike, num_in_batch):
    engine = Engine(short_traits(layout, max_batch_tokens=80))
    prompt = prompt_of(0, num_common=110)
    engine.submit("first", prompt, 6, ignore_eos=True)
    second = prompt if begins_alike else [90, *prompt[1:]]
    engine.submit("second", [*second, 1, 2, 3], 6, ignore_eos=True)
    engine.step()
    engine.step()
    assert len(engine.executor.batches[-1].sequences) == num_in_batch
    engine.run()
    engine.check_alone()


@pytest.mark.parametrize("layout", SHARING)
@pytest.mark.parametrize("fields", [{"cache_salt": "tenant"}, {"adapter": "a"}])
def test_other_tenants_and_other_adapters_are_not_waited_for(layout, fields):
    engine = Engine(short_traits(layout, adapters_per_batch=2))
    engine.submit("first", prompt_of(0), 6, ignore_eos=True)
    engine.submit("second", prompt_of(1), 6, ignore_eos=True, **fields)
    engine.step()
    assert engine.answer("first").token_ids
    assert engine.answer("second").token_ids


@pytest.mark.parametrize("layout", SHARING)
def test_scored_prompts_share_nothing_and_do_not_wait(layout):
    engine = Engine(short_traits(layout, max_scored_tokens=256))
    submit_all(engine, 3, prompt_logprobs=0)
    engine.step()
    assert num_started(engine, 3) == 3


@pytest.mark.parametrize("layout", SHARING)
def test_one_whose_beginning_is_known_does_not_wait(layout):
    engine = Engine(short_traits(layout))
    engine.submit("earlier", prompt_of(9), 6, ignore_eos=True)
    engine.run()
    submit_all(engine, 3)
    engine.step()
    assert num_started(engine, 3) == 3


@pytest.mark.parametrize("layout", SHARING)
def test_the_more_urgent_does_not_wait_for_the_less(layout):
    engine = Engine(short_traits(layout, max_batch_tokens=34))
    engine.submit("first", prompt_of(0), 6, ignore_eos=True)
    engine.step()
    engine.submit("urgent", prompt_of(1), 6, ignore_eos=True, priority=-1)
    engine.until(lambda: engine.answer("urgent").token_ids)
    assert not engine.answer("first").token_ids
    engine.run()
    engine.check_alone()


@pytest.mark.parametrize("layout", SHARING)
@pytest.mark.parametrize("end", ["cancelled", "failed", "out of memory"])
def test_when_the_one_ahead_leaves_the_next_computes_for_the_others(layout, end):
    engine = Engine(short_traits(layout))
    submit_all(engine, 4)
    if end == "failed":
        engine.executor.failing["r0"] = GenerationError("told to fail")
    elif end == "out of memory":
        engine.executor.out_of_memory = 3
    engine.step()
    if end == "cancelled":
        engine.cancel("r0")
    engine.run()
    engine.check_alone()
    assert set(engine.errors) == ({"r0"} if end == "failed" else set())
    assert [len(engine.answer(f"r{number}").token_ids) for number in range(1, 4)] == [6, 6, 6]


@pytest.mark.parametrize("layout", SHARING)
def test_forks_wait_as_others_do(layout):
    engine = Engine(short_traits(layout, block_size=4 if layout is PAGED else 1))
    submit_all(engine, 3, num_sequences=2)
    engine.run()
    engine.check_alone()
    # Each second sequence computes what its first has not left it: the last token, or block.
    per_fork = 70 % 4 if layout is PAGED else 1
    assert engine.stats.num_prefilled_tokens == 60 + 3 * 10 + 3 * per_fork


TRAITS = st.builds(
    lambda layout, tokens, block_size, *, mixed: long_traits(
        layout,
        max_batch_tokens=tokens,
        mixed_prefill=mixed,
        block_size=block_size if layout is PAGED else 1,
    ),
    st.sampled_from(SHARING),
    st.integers(24, 400),
    st.sampled_from([4, 16, 64]),
    mixed=st.booleans(),
)
# Where it parts from the text, how many tokens it has of its own, how many it is to generate.
REQUESTS = st.lists(
    st.tuples(st.integers(0, 150), st.integers(1, 20), st.integers(1, 6)), min_size=2, max_size=10
)
CHUNKS = st.one_of(st.none(), st.integers(20, 90))


def num_distinct(prompts):
    """Tokens to compute if no beginning is computed twice."""
    return len({tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)})


@settings(max_examples=150, deadline=None)
@given(traits=TRAITS, bunches=st.lists(REQUESTS, min_size=1, max_size=3), chunk=CHUNKS)
def test_everybody_finishes_and_little_is_computed_twice(traits, bunches, chunk):
    engine = Engine(traits, max_prefill_chunk=chunk)
    prompts = []
    for bunch in bunches:
        for num_common, num_own, max_new_tokens in bunch:
            prompts.append(prompt_of(len(prompts), num_common, num_own))
            engine.submit(f"r{len(prompts)}", prompts[-1], max_new_tokens, ignore_eos=True)
        engine.step()
    asked = [max_new_tokens for bunch in bunches for _, _, max_new_tokens in bunch]
    # Each step computes a token of the prompt ahead, or gives one; or it is the others' turn.
    engine.run(max_steps=2 * (sum(map(len, prompts)) + sum(asked)))
    engine.check_alone()
    answers = [engine.answer(f"r{number + 1}") for number in range(len(prompts))]
    assert [len(answer.token_ids) for answer in answers] == asked
    least = max(LEAST, traits.block_size)
    most = num_distinct(prompts) + len(prompts) * (least + traits.block_size)
    assert engine.stats.num_prefilled_tokens <= most
