"""llama.cpp's products of 8-bit weights on the CPU, which we patch, against numpy's.

Weights and tokens are such as q8_0 holds exactly, so only how sums are rounded may differ.
"""

import random
import zlib

import numpy as np
import pytest

from tests.llamacpp.ggml_operations import TENSOR, WORK_BYTES, Floats, context_of, function, on_grid

ROWS = (1, 5, 16, 17, 31, 100, 768)  # of weights; sixteen are computed together
WIDTHS = (32, 64, 96, 768, 2048)
TOKENS = (1, 2, 3, 4, 7, 15, 16, 17, 33, 100)  # one alone is computed as llama.cpp does
THREADS = (1, 2, 3, 9)
TOLERANCE = 1e-6
"""Of the largest sum that a row could have, in float32; 1e-7 is the most that was seen."""

_multiply = function("ggml_mul_mat", TENSOR, TENSOR, TENSOR, TENSOR)


def _computed(weights: Floats, tokens: Floats, num_threads: int, *, views: bool = False) -> Floats:
    """What ggml answers: (tokens, rows). `views`: each row lies between others of a matrix."""
    num_values = 3 * (weights.size + tokens.size) + len(weights) * len(tokens)
    with context_of(4 * num_values + WORK_BYTES) as context:
        made = context.between_others if views else context.tensor
        result = _multiply(context.handle, made(weights, "q8_0"), made(tokens, "f32"))
        return context.compute(result, (len(tokens), len(weights)), num_threads)


def _assert_close(answer: Floats, weights: Floats, tokens: Floats) -> None:
    largest = np.abs(tokens) @ np.abs(weights).T
    wrong = np.abs(answer - tokens @ weights.T) / largest
    places = np.argwhere(wrong > TOLERANCE)  # token, row
    assert not places.size, (len(places), places[:5].tolist(), wrong.max())


def _drawn(name: str, num_rows: int, width: int, num_tokens: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(zlib.crc32(f"{name} {num_rows} {width} {num_tokens}".encode()))
    return on_grid(rng, (num_rows, width)), on_grid(rng, (num_tokens, width), full=True)


@pytest.mark.parametrize("num_tokens", TOKENS)
@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("width", WIDTHS)
def test_products(width, num_rows, num_tokens):
    weights, tokens = _drawn("products", num_rows, width, num_tokens)
    choose = random.Random(f"{width} {num_rows} {num_tokens}").choice  # noqa: S311 -- a case
    answer = _computed(weights, tokens, choose(THREADS))
    _assert_close(answer, weights, tokens)


@pytest.mark.parametrize("num_threads", THREADS)
def test_rows_that_lie_apart(num_threads):
    weights, tokens = _drawn("apart", 100, 96, 20)
    _assert_close(_computed(weights, tokens, num_threads, views=True), weights, tokens)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums(sign):
    """Codes as large as there are, all of one sign: no sum of theirs may wrap around."""
    weights, tokens = np.full((16, 2048), -1.0), np.full((16, 2048), 127.0 * sign)
    weights[:, ::32] = -127.0
    weights[8:] = -127.0
    _assert_close(_computed(weights, tokens, 2), weights, tokens)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_none_stays_with_its_token(bad):
    weights, tokens = _drawn("bad", 40, 64, 20)
    plain = _computed(weights, tokens, 2)
    tokens[7, 3] = bad
    answer = _computed(weights, tokens, 2)
    others = np.arange(len(tokens)) != 7
    assert np.array_equal(answer[others], plain[others])


def test_every_token_has_the_answer_that_it_has_beside_others():
    """A batch of another size may change how sums are rounded, and nothing else."""
    weights, tokens = _drawn("beside", 48, 768, 40)
    whole = _computed(weights, tokens, 2)
    for num_tokens in range(2, 40, 3):
        assert np.array_equal(_computed(weights, tokens[:num_tokens], 2), whole[:num_tokens])
