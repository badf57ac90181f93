"""The green list is the same everywhere, as large as it says, and tells marked text from plain."""

import math
import random
from itertools import pairwise

import pytest
from backplane_core.sampling import SamplingParams, Watermark
from backplane_core.testing import sampling_reference
from backplane_core.watermark import (
    MULTIPLIERS,
    Z_THRESHOLD,
    detect,
    green_ids,
    is_green,
    key_of,
    mix32,
    threshold,
)

NUM_TOKENS = 300


def test_mix32_is_murmurs_finalizer() -> None:
    # Computed with the C function; 0 is its fixed point.
    known = {0: 0, 1: 0x514E28B7, 2: 0x30F4C306, 0xFFFFFFFF: 0x81F16F39}
    assert {value: mix32(value) for value in known} == known


def test_the_green_list_is_what_it_was() -> None:
    """Text marked yesterday must be found tomorrow: these values never change."""
    assert green_ids(0, 16, 0.5) == [4, 5, 6, 7, 8, 11, 12, 14, 15]
    assert green_ids(1, 16, 0.5) == [4, 6, 9, 10, 11, 13, 15]
    assert green_ids(2, 16, 0.5) == [2, 5, 6, 7, 9, 10, 12, 13, 14]


def test_wrapping_int64_arithmetic_agrees() -> None:
    """As torch would compute it: products wrap around 64 signed bits, then 32 are kept."""

    def wrapped(value: int) -> int:
        return (value + 2**63) % 2**64 - 2**63

    def mix(value: int) -> int:
        value = wrapped((value ^ (value >> 16)) * MULTIPLIERS[0]) & 0xFFFFFFFF
        value = wrapped((value ^ (value >> 13)) * MULTIPLIERS[1]) & 0xFFFFFFFF
        return value ^ (value >> 16)

    for previous in (0, 7, 131071):
        for token_id in range(200):
            hashed = mix(mix(token_id) ^ key_of(previous))
            assert (hashed < threshold(0.25)) == is_green(previous, token_id, 0.25)


@pytest.mark.parametrize("gamma", [0.1, 0.25, 0.5, 0.9])
def test_the_green_share_is_gamma_and_lists_of_neighbours_are_independent(gamma: float) -> None:
    size, lists = 2000, 40
    greens = [set(green_ids(previous, size, gamma)) for previous in range(lists)]
    deviation = math.sqrt(gamma * (1 - gamma) / (size * lists))
    assert sum(map(len, greens)) / (size * lists) == pytest.approx(gamma, abs=4 * deviation)
    both = sum(len(one & two) for one, two in pairwise(greens))
    deviation = math.sqrt(gamma**2 * (1 - gamma**2) / (size * (lists - 1)))
    assert both / (size * (lists - 1)) == pytest.approx(gamma**2, abs=4 * deviation)


def write_text(mark: Watermark | None, seed: int, num_tokens: int = 160) -> list[int]:
    """What a model of little conviction writes."""
    rng = random.Random(seed)  # noqa: S311 -- the same text every time
    params = SamplingParams(watermark=mark)
    text = [0]
    for _ in range(num_tokens):
        logits = {token_id: rng.gauss(0.0, 1.5) for token_id in range(NUM_TOKENS)}
        text.append(sampling_reference.sample(logits, params, [0], text[1:], seed=seed))
    return text


@pytest.mark.parametrize(("gamma", "delta"), [(0.5, 2.0), (0.25, 2.0), (0.5, 4.0)])
def test_marked_text_is_found_and_plain_text_is_not(gamma: float, delta: float) -> None:
    marked = detect(write_text(Watermark(gamma=gamma, delta=delta), seed=1), gamma)
    assert marked.z_score > Z_THRESHOLD
    assert marked.p_value < 1e-4
    assert marked.watermarked
    plain = detect(write_text(None, seed=1), gamma)
    assert abs(plain.z_score) < Z_THRESHOLD
    assert plain.p_value > 1e-4
    assert not plain.watermarked


def test_scores_of_random_text_are_standard_normal() -> None:
    rng = random.Random(2)  # noqa: S311 -- the same texts every time
    scores = [
        detect([rng.randrange(NUM_TOKENS) for _ in range(150)], 0.25).z_score for _ in range(400)
    ]
    mean = sum(scores) / len(scores)
    spread = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    assert mean == pytest.approx(0.0, abs=0.2)
    assert spread == pytest.approx(1.0, abs=0.15)


def test_a_pair_counts_once() -> None:
    green = green_ids(5, NUM_TOKENS, 0.5)[0]
    once = detect([5, green], 0.5)
    assert (once.num_scored, once.num_green) == (1, 1)
    repeated = detect([5, green] * 50, 0.5)
    assert repeated.num_scored == 2  # and back from the green one to 5


def test_the_statistics_by_hand() -> None:
    pairs = [(previous, green_ids(previous, NUM_TOKENS, 0.5)[3]) for previous in range(9)]
    text = [one for pair in pairs for one in pair]
    verdict = detect(text, 0.5)
    expected = (verdict.num_green - 0.5 * verdict.num_scored) / math.sqrt(0.25 * verdict.num_scored)
    assert verdict.num_scored == len(set(pairwise(text)))
    assert verdict.z_score == pytest.approx(expected)
    # Normal tails from tables: P(Z > 1.6449) is 5 %.
    assert 0.5 * math.erfc(1.6449 / math.sqrt(2)) == pytest.approx(0.05, abs=1e-5)
    assert verdict.p_value == pytest.approx(0.5 * math.erfc(expected / math.sqrt(2)))


@pytest.mark.parametrize("text", [[], [7]])
def test_text_too_short_to_score_is_not_watermarked(text: list[int]) -> None:
    verdict = detect(text, 0.5)
    assert (verdict.num_scored, verdict.z_score, verdict.p_value) == (0, 0.0, 1.0)
    assert not verdict.watermarked


@pytest.mark.parametrize("gamma", [0.0, 1.0, -1.0, math.nan])
def test_a_share_that_is_none_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        detect([1, 2, 3], gamma)
