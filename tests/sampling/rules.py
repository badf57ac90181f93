"""What every backend's sampler is held to: core's vectors, its plain reference, and its edges.

A backend's test module subclasses `SamplingRules` and has a fixture `sampler_for`.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backplane_core.errors import GenerationError
from backplane_core.sampling import SamplingParams, StoppingParams, sequence_seed, uniform
from backplane_core.testing import sampling_reference, sampling_vectors

from tests.sampling.rows import RowSampler, masking, packed, sequence, with_seed

CASES = sampling_vectors.load().cases
# Makes a sampler for so many tokens, of which some may be suppressed.
SamplerFor = Callable[..., Any]
# (sampler, sequence, logits, expected, mask=None, *, least=1e-30, near=1e-6): that a row keeps the
# tokens expected, with these probabilities, as far as they are above `least`.
AssertKept = Callable[..., None]


def check_random_parameters(
    sampler: RowSampler,
    assert_kept: AssertKept,
    *,
    params: SamplingParams,
    prompt: list[int],
    output: list[int],
    allowed: set[int] | None,
    masked: list[int],
    random_state: int,
) -> None:
    """Hold a sampler of 48 tokens to the reference."""
    logits = np.random.default_rng(random_state).normal(0, 3, 48).astype(np.float32)
    before = logits.copy()
    one = sequence(prompt, output, params, **masking(masked, len(output)))
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


class SamplingRules:
    """`sampler_for(n_vocab, suppressed)` gives a `RowSampler`."""

    assert_kept: AssertKept

    @pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
    def test_vectors(self, sampler_for: SamplerFor, case: sampling_vectors.SamplingVector) -> None:
        sampler = sampler_for(len(case.logits))
        logits = np.array(case.logits, np.float32)
        mask = masking(case.masked, len(case.output))
        one = sequence(case.prompt, case.output, case.params, **mask)
        if case.params.greedy:
            assert sampler.sample(0, one, logits) == case.kept[0].token_id
        else:
            expected = {c.token_id: c.probability for c in case.kept}
            self.assert_kept(sampler, one, logits, expected)
        for draw in case.draws:
            one = sequence(case.prompt, case.output, with_seed(case.params, draw.seed), **mask)
            assert sampler.sample(0, one, logits) == draw.token_id
        for token_id, expected in enumerate(case.logprobs):
            logprob, _ = sampler.logprobs(logits, token_id, 0)
            assert logprob == pytest.approx(expected, abs=1e-5)

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
    def test_a_vocabulary_larger_than_the_first_look(
        self, sampler_for: SamplerFor, params: dict[str, float]
    ) -> None:
        logits = np.random.default_rng(5).normal(0, 0.3, 5000).astype(np.float32)
        wanted = SamplingParams(**params)
        expected = sampling_reference.distribution(dict(enumerate(map(float, logits))), wanted)
        one = sequence([1], [], wanted)
        self.assert_kept(sampler_for(5000), one, logits, expected, near=1e-6)

    def test_equal_logits_at_the_edge_keep_the_lowest_ids(self, sampler_for: SamplerFor) -> None:
        logits = np.zeros(1000, np.float32)
        logits[[3, 500, 999]] = 1.0
        sampler = sampler_for(1000)
        for top_k, ids in ((2, [3, 500]), (5, [0, 1, 3, 500, 999])):
            one = sequence([1], [], SamplingParams(top_k=top_k))
            total = float(np.exp(logits[ids]).sum())
            expected = {token_id: math.exp(logits[token_id]) / total for token_id in ids}
            self.assert_kept(sampler, one, logits, expected)
        assert sampler.sample(0, sequence([1], [], SamplingParams(temperature=0.0)), logits) == 3

    def test_more_than_there_are_is_all(self, sampler_for: SamplerFor) -> None:
        logits = np.linspace(0, 1, 100, dtype=np.float32)
        every = [
            sequence([1], [], SamplingParams(top_k=top_k, seed=3)) for top_k in (0, 100, 2**63)
        ]
        assert len({sampler_for(100).sample(0, one, logits) for one in every}) == 1
        assert len(sampler_for(100).logprobs(logits, 3, 2**40)[1]) == 100

    def test_a_seed_draws_the_same_whatever_else_is_sampled(self, sampler_for: SamplerFor) -> None:
        random = np.random.default_rng(11)
        rows = random.normal(0, 2, (30, 300)).astype(np.float32)
        params = SamplingParams(temperature=0.9, top_p=0.9, seed=77)
        sampler = sampler_for(300)

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

    def test_choices_of_a_request_differ_and_choice_0_has_its_seed(
        self, sampler_for: SamplerFor
    ) -> None:
        row = np.zeros(300, np.float32)
        params = SamplingParams(seed=9)
        sampler = sampler_for(300)
        drawn = [
            sampler.sample(0, sequence([1], [], params, index=index), row) for index in range(8)
        ]
        assert len(set(drawn)) > 4
        assert drawn[0] == math.floor(uniform(9, 1) * 300)
        assert drawn[3] == math.floor(uniform(sequence_seed(9, 3), 1) * 300)

    def test_penalty_counts_follow_the_output_and_a_reused_id_starts_anew(
        self, sampler_for: SamplerFor
    ) -> None:
        sampler = sampler_for(16)
        logits = np.linspace(0, 1, 16, dtype=np.float32)
        params = SamplingParams(temperature=0.0, frequency_penalty=0.4)
        one = sequence([15, 15], [], params)
        for expected in (15, 14, 13, 12):
            assert sampler.sample(3, one, logits) == expected
            one.token_ids.append(expected)
        fresh = sequence([0], [], params)  # the id 3 again, without `forget`
        assert sampler.sample(3, fresh, logits) == 15

    def test_the_repetition_penalty_looks_at_the_prompt_too(self, sampler_for: SamplerFor) -> None:
        sampler = sampler_for(16)
        logits = np.linspace(1, 2, 16, dtype=np.float32)
        params = SamplingParams(temperature=0.0, repetition_penalty=3.0)
        one = sequence([15, 14], [], params)
        for expected in (13, 12):
            assert sampler.sample(3, one, logits) == expected
            one.token_ids.append(expected)

    def test_only_what_the_grammar_allows_comes_and_its_mask_rules_early_ends(
        self, sampler_for: SamplerFor
    ) -> None:
        logits = np.array([0, 1, 2, 3, 4, 5, 6, 7], np.float32)
        stopping = StoppingParams(max_new_tokens=9, min_new_tokens=2, stop_token_ids=(6,))
        greedy = SamplingParams(temperature=0.0, logit_bias={5: 100.0})
        one = sequence([1], [], greedy, stopping=stopping, eos=frozenset({7}))
        assert sampler_for(8).sample(0, one, logits, packed([1, 2], 8)) == 2
        assert sampler_for(8).sample(0, one, logits, packed([7], 8)) == 7

    def test_suppressed_tokens_never_come_but_their_logprobs_are_the_models(
        self, sampler_for: SamplerFor
    ) -> None:
        sampler = sampler_for(4, (3,))
        logits = np.array([0, 1, 2, 3], np.float32)
        lifted = SamplingParams(temperature=0.0, logit_bias={3: 100.0})
        assert sampler.sample(0, sequence([1], [], lifted), logits) == 2
        assert sampler.logprobs(logits, 3, 1)[1][0][0] == 3

    def test_end_tokens_are_masked_until_min_new_tokens(self, sampler_for: SamplerFor) -> None:
        sampler = sampler_for(8)
        logits = np.array([0, 1, 2, 3, 4, 5, 6, 7], np.float32)
        stopping = StoppingParams(max_new_tokens=9, min_new_tokens=2, stop_token_ids=(6,))
        greedy = SamplingParams(temperature=0.0)
        one = sequence([1], [], greedy, stopping=stopping, eos=frozenset({7}))
        drawn = []
        for _ in range(3):
            drawn.append(sampler.sample(0, one, logits))
            one.token_ids.append(drawn[-1])
        assert drawn == [5, 5, 7]

    def test_top_logprobs_are_sorted_and_ties_go_to_the_lower_id(
        self, sampler_for: SamplerFor
    ) -> None:
        logits = np.array([1.0, 3.0, 3.0, 2.0, 3.0], np.float32)
        logprob, top = sampler_for(5).logprobs(logits, 3, 2)
        normalizer = math.log(sum(math.exp(value) for value in logits.tolist()))
        assert logprob == pytest.approx(2.0 - normalizer)
        assert [token_id for token_id, _ in top] == [1, 2]
        assert top[0][1] == pytest.approx(3.0 - normalizer)

    @pytest.mark.parametrize("broken", [np.nan, -np.inf])
    def test_no_possible_token_is_an_error(self, sampler_for: SamplerFor, broken: float) -> None:
        logits = np.full(8, broken, np.float32)
        one = sequence([1], [], SamplingParams())
        with pytest.raises(GenerationError, match="no token can follow"):
            sampler_for(8).sample(0, one, logits)

    @pytest.mark.parametrize("n_vocab", [5, 512, 513, 5000])
    def test_draws_fall_where_the_cumulative_probability_says(
        self, sampler_for: SamplerFor, n_vocab: int
    ) -> None:
        logits = np.random.default_rng(n_vocab).normal(0, 2, n_vocab).astype(np.float32)
        expected = sampling_reference.softmax(dict(enumerate(map(float, logits))))
        cumulative = np.cumsum(list(expected.values()))
        sampler = sampler_for(n_vocab)
        for position in range(1, 300):
            number = uniform(3, position)
            drawn = sampler.sample(0, sequence([1] * position, [], SamplingParams(seed=3)), logits)
            if np.abs(cumulative - number).min() > 1e-6:
                assert drawn == int(np.searchsorted(cumulative, number, side="right"))

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("n_vocab", [512, 5000])
    @pytest.mark.parametrize("temperature", [1e-300, 1e-46, 1e-5, 1.0, 1000.0, 1e300])
    def test_no_parameters_break_the_sampler(
        self, sampler_for: SamplerFor, n_vocab: int, temperature: float
    ) -> None:
        logits = (np.random.default_rng(0).normal(size=n_vocab) * 3).astype(np.float32)
        logits[7] = -np.inf  # as a mask leaves it
        edges = (1e-12, 0.5, 0.999999, 1.0)
        for top_p, typical_p, min_p, top_k in itertools.product(
            edges, edges, (0.0, 1.0), (0, 1, 4500)
        ):
            params = SamplingParams(
                temperature=temperature, top_p=top_p, typical_p=typical_p, min_p=min_p, top_k=top_k
            )
            drawn = sampler_for(n_vocab).sample(0, sequence([1, 2], [], params), logits)
            assert 0 <= drawn < n_vocab
            assert drawn != 7
