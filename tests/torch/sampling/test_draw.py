"""A draw falls where the cumulative share of the weights says, at any width."""

import numpy as np
import pytest
import torch
from backplane_torch.engine.sampling.draw import column_at
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTHS = (1, 5, 1024, 1025, 1536, 20_011)


@settings(max_examples=200, deadline=None)
@given(
    width=st.sampled_from(WIDTHS),
    number=st.floats(0.0, 1.0, exclude_max=True),
    kept=st.sampled_from([1.0, 0.3, 0.01]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_first_beyond_the_number(width, number, kept, dtype, seed):
    random = torch.Generator().manual_seed(seed)
    weights = torch.rand(2, width, generator=random)
    weights *= torch.rand(2, width, generator=random) < kept
    weights[0, -1] = weights[1, 0] = 0.5
    columns = column_at(weights, torch.tensor([number, number], dtype=dtype)).tolist()
    for row, column in zip(weights.numpy().astype(np.float64), columns, strict=True):
        assert row[column] > 0
        until = np.cumsum(row) / row.sum()
        assert (until[column - 1] if column else 0.0) - 1e-6 <= number <= until[column] + 1e-6


@pytest.mark.parametrize("width", [10, 5000])
def test_the_ends_of_the_interval(width):
    weights = torch.zeros(2, width)
    weights[:, 3] = weights[:, 7] = 1.0
    numbers = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    assert column_at(weights, numbers).tolist() == [3, 7]
    assert column_at(weights, numbers.float()).tolist() == [3, 7]  # the latter is rounded to 1


def test_in_64_bits_few_of_many_flat_weights_miss_their_neighbours():
    weights = torch.rand(64, 128_000, generator=torch.Generator().manual_seed(0)) + 0.5
    numbers = torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    until = np.cumsum(weights.numpy().astype(np.float64), axis=1)
    expected = [
        int(np.searchsorted(row, number * row[-1], side="right"))
        for row, number in zip(until, numbers.tolist(), strict=True)
    ]
    assert column_at(weights, numbers).tolist() == expected
