"""What a cut keeps, found by sorting and digit by digit, against numpy's sorting in 64 bits."""

import numpy as np
import pytest
import torch
from backplane_torch.engine.sampling import truncation
from backplane_torch.engine.sampling.truncation import reaching
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.torch.sampling.test_highest import rows_of

KINDS = ("normal", "bfloat16", "steps", "masked", "zeros")
both = pytest.mark.parametrize(
    "reach", [truncation._by_sorting, truncation._by_digits], ids=["sorting", "digits"]
)


def expected_of(scores, weights, mass):
    """What is kept of a row, and how near to the mass one more or less comes."""
    order = np.argsort(-scores, kind="stable")
    until = np.cumsum(weights[order].astype(np.float64))
    kept = order[: int(np.searchsorted(until, mass)) + 1]
    return {place for place in kept.tolist() if weights[place] > 0}, np.abs(until - mass).min()


@both
@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    width=st.sampled_from([1, 5, 300, 4096]),
    seed=st.integers(0, 2**32 - 1),
    masses=st.lists(st.sampled_from([1e-9, 0.1, 0.5, 0.95, 0.9999]), min_size=3, max_size=3),
    other_scores=st.booleans(),
)
def test_the_shortest_beginning_that_reaches_a_mass(
    *, reach, kind, width, seed, masses, other_scores
):
    logits = rows_of(kind, width, seed)
    logits[:, 0] = 1.0  # a row of which all is masked has no weights
    weights = logits.softmax(-1)
    scores = -(weights - 0.3 / width).abs() if other_scores else logits
    kept = reach(scores, weights, torch.tensor(masses).double().unsqueeze(1))
    for row, mass in enumerate(masses):
        found = set((kept[row] & (weights[row] > 0)).nonzero().flatten().tolist())
        expected, nearness = expected_of(scores[row].numpy(), weights[row].numpy(), mass)
        # Sums are float32's: where a mass is met to the last digits one more or less is as right.
        if nearness > 1e-6:
            assert found == expected
        else:
            assert abs(float(weights[row][sorted(found)].sum()) - mass) < 1e-5 or found == expected


@both
def test_an_infinite_mass_keeps_all_and_none_keeps_the_best(reach):
    scores = torch.tensor([[0.0, 3.0, 3.0, -torch.inf], [2.0, 1.0, 0.0, -1.0]])
    weights = scores.softmax(-1)
    masses = torch.tensor([[torch.inf], [truncation._TINY]])
    assert reach(scores, weights, masses).tolist() == [[True] * 4, [True, False, False, False]]


@both
def test_counts_keep_the_k_highest(reach):
    scores = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0, 1.0]]).expand(3, -1)
    kept = reach(scores, torch.ones(3, 6), torch.tensor([[1.0], [2.0], [4.0]]))
    assert [row.nonzero().flatten().tolist() for row in kept] == [[1], [1, 2], [0, 1, 2, 4]]


def test_wide_rows_are_taken_some_at_a_time(monkeypatch):
    logits = torch.randn(7, 5000)
    weights = logits.softmax(-1)
    masses = torch.linspace(0.1, 0.99, 7)
    together = reaching(logits, weights, masses)
    monkeypatch.setattr(truncation, "_NUM_AT_ONCE", 10_001)
    assert torch.equal(reaching(logits, weights, masses), together)
    assert together.sum(-1).diff().min() > 0
