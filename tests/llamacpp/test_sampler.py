"""The sampler against core's vectors and, on random parameters, against core's plain reference."""

import itertools
import math

import msgspec
import numpy as np
import pytest
from backplane_core.errors import GenerationError
from backplane_core.messages import Grammar
from backplane_core.sampling import (
    SamplingParams,
    StoppingParams,
    Watermark,
    sequence_seed,
    uniform,
)
from backplane_core.testing import sampling_reference, sampling_vectors
from backplane_core.watermark import green_ids
from backplane_llamacpp.logits_processors import GreenList, needs_only_argmax
from backplane_llamacpp.numpy_sampler import NumpySampler
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.llamacpp.row_samplers import (
    KINDS,
    LIBRARY,
    AnySampler,
    Compiled,
    assert_kept,
    compiled,
    each_kind,
    packed,
    sampler_for,
    sequence,
)

CASES = sampling_vectors.load().cases


def with_seed(params: SamplingParams, seed: int) -> SamplingParams:
    names = SamplingParams.__struct_fields__
    return SamplingParams(**{name: getattr(params, name) for name in names} | {"seed": seed})


def masking(masked: list[int], num_output: int) -> dict[str, object]:
    minimum = num_output + 1 if masked else 0
    return {
        "eos": frozenset(masked),
        "stopping": StoppingParams(max_new_tokens=100, min_new_tokens=minimum),
    }


@each_kind
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_vectors(case: sampling_vectors.SamplingVector, kind: str) -> None:
    sampler = sampler_for(len(case.logits), kind)
    logits = np.array(case.logits, np.float32)
    mask = masking(case.masked, len(case.output))
    one = sequence(case.prompt, case.output, case.params, **mask)
    if case.params.greedy:
        assert sampler.sample(0, one, logits) == case.kept[0].token_id
    else:
        least = 1e-30 if kind == "wide" else 0.0  # float32 has no room for less
        expected = {c.token_id: c.probability for c in case.kept}
        assert_kept(sampler, one, logits, expected, least=least)
    for draw in case.draws:
        one = sequence(case.prompt, case.output, with_seed(case.params, draw.seed), **mask)
        assert sampler.sample(0, one, logits) == draw.token_id
    for token_id, expected in enumerate(case.logprobs):
        logprob, _ = sampler.logprobs(logits, token_id, 0)
        assert logprob == pytest.approx(expected, abs=1e-5)


# Three decimals keep thresholds away from rounding; 0 and 1, where they are switches, are there.
share = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
token_ids = st.lists(st.integers(0, 47), max_size=12)
random_params = st.builds(
    SamplingParams,
    watermark=st.none()
    | st.builds(Watermark, gamma=st.sampled_from([0.25, 0.5]), delta=st.sampled_from([2.0, -1.0])),
    logit_bias=st.dictionaries(
        st.integers(0, 47), st.sampled_from([-100.0, -1.5, 2.5]), max_size=4
    ),
    repetition_penalty=st.sampled_from([0.8, 1.0, 1.0, 1.3, 2.0]),
    frequency_penalty=st.sampled_from([-0.5, 0.0, 0.0, 0.7]),
    presence_penalty=st.sampled_from([-1.0, 0.0, 0.0, 0.9]),
    temperature=st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.7]),
    top_k=st.integers(0, 60),
    top_p=share,
    min_p=share,
    typical_p=share,
    seed=st.integers(0, 2**64 - 1),
)


@settings(max_examples=600, deadline=None)
@given(
    params=random_params,
    prompt=token_ids.filter(bool),
    output=token_ids,
    allowed=st.none() | st.sets(st.integers(0, 47), min_size=1),
    masked=st.lists(st.integers(0, 47), max_size=3, unique=True),
    random_state=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS if LIBRARY else KINDS[:-1]),
)
def test_random_parameters_against_the_reference(
    *,
    params: SamplingParams,
    prompt: list[int],
    output: list[int],
    allowed: set[int] | None,
    masked: list[int],
    random_state: int,
    kind: str,
) -> None:
    logits = np.random.default_rng(random_state).normal(0, 3, 48).astype(np.float32)
    before = logits.copy()
    one = sequence(prompt, output, params, **masking(masked, len(output)))
    sampler = sampler_for(48, kind)
    # A guide's mask has dealt with early ends: they may come where nothing else may.
    permitted = None if allowed is None else allowed - set(masked) or allowed
    mask = None if permitted is None else packed(permitted, 48)
    token_id = sampler.sample(0, one, logits, mask)
    assert np.array_equal(logits, before)
    assert allowed is None or token_id in allowed

    model_logits = dict(enumerate(map(float, logits)))
    processed = sampling_reference.process_logits(
        model_logits, params, prompt, output, masked=masked, allowed=allowed
    )
    expected = sampling_reference.distribution(processed, params)
    if params.greedy:
        assert token_id in expected
        return
    assert_kept(sampler, one, logits, expected, mask, least=1e-9, near=2e-5)
    assert np.array_equal(logits, before)
    number = uniform(one.seed, len(one.token_ids))
    cumulative = np.cumsum(list(expected.values()))
    if np.abs(cumulative - number).min() > 1e-4:
        assert token_id == sampling_reference.draw(expected, number)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"top_p": 0.95},
        {"top_p": 0.2},
        {"top_k": 700, "top_p": 0.9},
        {"top_k": 40},
        {"typical_p": 0.4},
        {"min_p": 0.3, "typical_p": 0.9},
        {"top_k": 4500, "typical_p": 0.7, "temperature": 0.6},
    ],
)
@each_kind
def test_a_vocabulary_larger_than_the_first_look(params: dict[str, float], kind: str) -> None:
    logits = np.random.default_rng(5).normal(0, 0.3, 5000).astype(np.float32)
    wanted = SamplingParams(**params)
    expected = sampling_reference.distribution(dict(enumerate(map(float, logits))), wanted)
    one = sequence([1], [], wanted)
    assert_kept(sampler_for(5000, kind), one, logits, expected, near=1e-6)


@each_kind
def test_equal_logits_at_the_edge_keep_the_lowest_ids(kind: str) -> None:
    logits = np.zeros(1000, np.float32)
    logits[[3, 500, 999]] = 1.0
    sampler = sampler_for(1000, kind)
    for top_k, ids in ((2, [3, 500]), (5, [0, 1, 3, 500, 999])):
        one = sequence([1], [], SamplingParams(top_k=top_k))
        total = float(np.exp(logits[ids]).sum())
        expected = {token_id: math.exp(logits[token_id]) / total for token_id in ids}
        assert_kept(sampler, one, logits, expected)
    assert sampler.sample(0, sequence([1], [], SamplingParams(temperature=0.0)), logits) == 3


@each_kind
def test_more_than_there_are_is_all(kind: str) -> None:
    logits = np.linspace(0, 1, 100, dtype=np.float32)
    every = [sequence([1], [], SamplingParams(top_k=top_k, seed=3)) for top_k in (0, 100, 2**63)]
    assert len({sampler_for(100, kind).sample(0, one, logits) for one in every}) == 1
    assert len(sampler_for(100, kind).logprobs(logits, 3, 2**40)[1]) == 100


@each_kind
def test_a_seed_draws_the_same_whatever_else_is_sampled(kind: str) -> None:
    random = np.random.default_rng(11)
    rows = random.normal(0, 2, (30, 300)).astype(np.float32)
    params = SamplingParams(temperature=0.9, top_p=0.9, seed=77)
    sampler = sampler_for(300, kind)

    alone = sequence([1, 2], [], params)
    for row in rows:
        alone.token_ids.append(sampler.sample(0, alone, row))
    crowded = sequence([1, 2], [], params)
    other = sequence([4], [], with_seed(params, 5))
    for row in rows:
        other.token_ids.append(sampler.sample(2, other, row[::-1].copy()))
        crowded.token_ids.append(sampler.sample(1, crowded, row))
    assert crowded.token_ids == alone.token_ids
    assert len(set(alone.token_ids)) > 10


@each_kind
def test_choices_of_a_request_differ_and_choice_0_has_its_seed(kind: str) -> None:
    row = np.zeros(300, np.float32)
    params = SamplingParams(seed=9)
    sampler = sampler_for(300, kind)
    drawn = [sampler.sample(0, sequence([1], [], params, index=index), row) for index in range(8)]
    assert len(set(drawn)) > 4
    assert drawn[0] == math.floor(uniform(9, 1) * 300)
    assert drawn[3] == math.floor(uniform(sequence_seed(9, 3), 1) * 300)


@each_kind
def test_penalty_counts_follow_the_output_and_a_reused_id_starts_anew(kind: str) -> None:
    sampler = sampler_for(16, kind)
    logits = np.linspace(0, 1, 16, dtype=np.float32)
    params = SamplingParams(temperature=0.0, frequency_penalty=0.4)
    one = sequence([15, 15], [], params)
    for expected in (15, 14, 13, 12):
        assert sampler.sample(3, one, logits) == expected
        one.token_ids.append(expected)
    fresh = sequence([0], [], params)  # the id 3 again, without `forget`
    assert sampler.sample(3, fresh, logits) == 15


@each_kind
def test_the_repetition_penalty_looks_at_the_prompt_too(kind: str) -> None:
    sampler = sampler_for(16, kind)
    logits = np.linspace(1, 2, 16, dtype=np.float32)
    params = SamplingParams(temperature=0.0, repetition_penalty=3.0)
    one = sequence([15, 14], [], params)
    for expected in (13, 12):
        assert sampler.sample(3, one, logits) == expected
        one.token_ids.append(expected)


@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_the_green_list_is_cores(gamma: float) -> None:
    greens = GreenList(500)
    for previous in (0, 3, 499, 128_000, 3):
        found = np.flatnonzero(greens.after(previous, gamma)).tolist()
        assert found == green_ids(previous, 500, gamma)


@each_kind
def test_only_what_the_grammar_allows_comes_and_its_mask_rules_early_ends(kind: str) -> None:
    logits = np.array([0, 1, 2, 3, 4, 5, 6, 7], np.float32)
    stopping = StoppingParams(max_new_tokens=9, min_new_tokens=2, stop_token_ids=(6,))
    greedy = SamplingParams(temperature=0.0, logit_bias={5: 100.0})
    one = sequence([1], [], greedy, stopping=stopping, eos=frozenset({7}))
    assert sampler_for(8, kind).sample(0, one, logits, packed([1, 2], 8)) == 2
    assert sampler_for(8, kind).sample(0, one, logits, packed([7], 8)) == 7


@pytest.mark.parametrize("make", [NumpySampler, pytest.param(Compiled, marks=compiled)])
def test_suppressed_tokens_never_come_but_their_logprobs_are_the_models(
    make: type[AnySampler],
) -> None:
    sampler = make(4, [3])
    logits = np.array([0, 1, 2, 3], np.float32)
    lifted = SamplingParams(temperature=0.0, logit_bias={3: 100.0})
    assert sampler.sample(0, sequence([1], [], lifted), logits) == 2
    assert sampler.logprobs(logits, 3, 1)[1][0][0] == 3


@each_kind
def test_end_tokens_are_masked_until_min_new_tokens(kind: str) -> None:
    sampler = sampler_for(8, kind)
    logits = np.array([0, 1, 2, 3, 4, 5, 6, 7], np.float32)
    stopping = StoppingParams(max_new_tokens=9, min_new_tokens=2, stop_token_ids=(6,))
    greedy = SamplingParams(temperature=0.0)
    one = sequence([1], [], greedy, stopping=stopping, eos=frozenset({7}))
    drawn = []
    for _ in range(3):
        drawn.append(sampler.sample(0, one, logits))
        one.token_ids.append(drawn[-1])
    assert drawn == [5, 5, 7]


@each_kind
def test_top_logprobs_are_sorted_and_ties_go_to_the_lower_id(kind: str) -> None:
    logits = np.array([1.0, 3.0, 3.0, 2.0, 3.0], np.float32)
    logprob, top = sampler_for(5, kind).logprobs(logits, 3, 2)
    normalizer = math.log(sum(math.exp(value) for value in logits.tolist()))
    assert logprob == pytest.approx(2.0 - normalizer)
    assert [token_id for token_id, _ in top] == [1, 2]
    assert top[0][1] == pytest.approx(3.0 - normalizer)


@pytest.mark.parametrize("broken", [np.nan, -np.inf])
@each_kind
def test_no_possible_token_is_an_error(broken: float, kind: str) -> None:
    logits = np.full(8, broken, np.float32)
    one = sequence([1], [], SamplingParams())
    with pytest.raises(GenerationError, match="no token can follow"):
        sampler_for(8, kind).sample(0, one, logits)


@pytest.mark.parametrize(
    "not_plain",
    [
        {"temperature": 0.5},
        {"logit_bias": {1: 1.0}},
        {"repetition_penalty": 1.1},
        {"frequency_penalty": 0.1},
        {"presence_penalty": 0.1},
        {"watermark": Watermark()},
    ],
)
def test_the_fast_path_is_for_plain_greedy_alone(not_plain: dict[str, object]) -> None:
    plain = sequence([1], [], SamplingParams(temperature=0.0))
    assert needs_only_argmax([plain])
    other = SamplingParams(**{"temperature": 0.0} | not_plain)
    assert not needs_only_argmax([plain, sequence([1], [], other)])
    waiting = StoppingParams(max_new_tokens=5, min_new_tokens=1)
    held = sequence([1], [], SamplingParams(temperature=0.0), stopping=waiting)
    assert not needs_only_argmax([held])
    guided = sequence([1], [], SamplingParams(temperature=0.0))
    grammar = Grammar(kind="regex", source="a")
    guided.request = msgspec.structs.replace(guided.request, grammar=grammar)
    assert not needs_only_argmax([plain, guided])


@pytest.mark.parametrize("n_vocab", [5, 512, 513, 5000])
@each_kind
def test_draws_fall_where_the_cumulative_probability_says(n_vocab: int, kind: str) -> None:
    logits = np.random.default_rng(n_vocab).normal(0, 2, n_vocab).astype(np.float32)
    expected = sampling_reference.softmax(dict(enumerate(map(float, logits))))
    cumulative = np.cumsum(list(expected.values()))
    sampler = sampler_for(n_vocab, kind)
    for position in range(1, 300):
        number = uniform(3, position)
        drawn = sampler.sample(0, sequence([1] * position, [], SamplingParams(seed=3)), logits)
        if np.abs(cumulative - number).min() > 1e-6:
            assert drawn == int(np.searchsorted(cumulative, number, side="right"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_vocab", [512, 5000])
@pytest.mark.parametrize("temperature", [1e-300, 1e-46, 1e-5, 1.0, 1000.0, 1e300])
@each_kind
def test_no_parameters_break_the_sampler(n_vocab: int, temperature: float, kind: str) -> None:
    logits = (np.random.default_rng(0).normal(size=n_vocab) * 3).astype(np.float32)
    logits[7] = -np.inf  # as a mask leaves it
    edges = (1e-12, 0.5, 0.999999, 1.0)
    for top_p, typical_p, min_p, top_k in itertools.product(edges, edges, (0.0, 1.0), (0, 1, 4500)):
        params = SamplingParams(
            temperature=temperature, top_p=top_p, typical_p=typical_p, min_p=min_p, top_k=top_k
        )
        drawn = sampler_for(n_vocab, kind).sample(0, sequence([1, 2], [], params), logits)
        assert 0 <= drawn < n_vocab
        assert drawn != 7
