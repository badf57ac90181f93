"""The seeds against published SplitMix64 outputs, and draws against their distribution."""

import math

import pytest
from backplane_core.sampling import SamplingParams, mix64, sequence_seed, uniform
from backplane_core.testing import sampling_reference

GOLDEN = 0x9E3779B97F4A7C15

# First outputs of the generator of Steele, Lea and Flood under two seeds, as published with
# Vigna's splitmix64.c and on Rosetta Code.
PUBLISHED = {
    0: (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC),
    1234567: (
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ),
}
# Rosetta Code: how often floor(5 * number) is 0 … 4 in the first 100,000 numbers of this seed.
HISTOGRAM_SEED = 987654321
HISTOGRAM = [20027, 19892, 20073, 19978, 20030]


@pytest.mark.parametrize("seed", PUBLISHED)
def test_mix64_is_splitmix64s_finalizer(seed: int) -> None:
    outputs = [mix64(seed + count * GOLDEN) for count in range(1, len(PUBLISHED[seed]) + 1)]
    assert outputs == list(PUBLISHED[seed])


def test_choice_seeds_are_splitmix64s_outputs() -> None:
    assert sequence_seed(1234567, 0) == 1234567
    assert [sequence_seed(1234567, index) for index in range(1, 6)] == list(PUBLISHED[1234567])


def test_uniform_is_a_splitmix64_stream_started_at_the_mixed_seed() -> None:
    state = mix64(77)
    for position in range(10):
        state = (state + GOLDEN) % 2**64
        assert uniform(77, position) == (mix64(state) >> 11) / 2**53


def test_numbers_fall_as_published() -> None:
    counts = [0] * 5
    for step in range(1, 100_001):
        counts[mix64(HISTOGRAM_SEED + step * GOLDEN) * 5 >> 64] += 1
    assert counts == HISTOGRAM


def test_uniform_stays_in_its_interval_for_the_outermost_seeds() -> None:
    for seed in (0, 2**64 - 1, 2**63):
        for position in (0, 1, 2**31, 2**63):
            assert 0.0 <= uniform(seed, position) < 1.0


WEIGHTED = {0: 1.2, 1: -0.5, 2: 0.3, 3: 2.0, 4: -1.5, 5: 0.9}
NUM_DRAWS = 20_000
# Chi-square's 99.99 % point for 5 degrees of freedom. Seeds are fixed: no luck is involved.
CRITICAL = 25.74


def chi_square(tokens: list[int], probabilities: dict[int, float]) -> float:
    counts = {token_id: tokens.count(token_id) for token_id in probabilities}
    return math.fsum(
        (counts[key] - len(tokens) * share) ** 2 / (len(tokens) * share)
        for key, share in probabilities.items()
    )


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(lambda: [uniform(9, place) for place in range(NUM_DRAWS)], id="positions"),
        pytest.param(lambda: [uniform(seed, 30) for seed in range(NUM_DRAWS)], id="seeds"),
        pytest.param(
            lambda: [uniform(sequence_seed(5, index), 30) for index in range(NUM_DRAWS)],
            id="choices",
        ),
    ],
)
def test_draws_follow_the_distribution(numbers) -> None:
    probabilities = sampling_reference.distribution(WEIGHTED, SamplingParams())
    tokens = [sampling_reference.draw(probabilities, number) for number in numbers()]
    assert chi_square(tokens, probabilities) < CRITICAL


def test_chi_square_notices_a_wrong_temperature() -> None:
    tokens = [
        sampling_reference.draw(
            sampling_reference.distribution(WEIGHTED, SamplingParams(temperature=1.1)),
            uniform(9, place),
        )
        for place in range(NUM_DRAWS)
    ]
    expected = sampling_reference.distribution(WEIGHTED, SamplingParams())
    assert chi_square(tokens, expected) > CRITICAL


def test_neighbouring_positions_and_choices_are_uncorrelated() -> None:
    for pairs in (
        [(uniform(3, place), uniform(3, place + 1)) for place in range(NUM_DRAWS)],
        [(uniform(seed, 8), uniform(sequence_seed(seed, 1), 8)) for seed in range(NUM_DRAWS)],
        [(uniform(seed, 8), uniform(seed + 1, 8)) for seed in range(NUM_DRAWS)],
    ):
        covariance = math.fsum((a - 0.5) * (b - 0.5) for a, b in pairs) / NUM_DRAWS
        # 4 standard deviations of the mean of a product of two uniforms' deviations.
        assert abs(covariance) < 4 * (1 / 12) / math.sqrt(NUM_DRAWS)
