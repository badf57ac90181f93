"""The highest of rows against a stable sort of all, on rows full of equals."""

import pytest
import torch
from backplane_torch.engine.sampling.highest import argmax, highest, ordered_bits
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTHS = (1, 31, 64, 257, 1000, 4097, 20_011)


def rows_of(kind: str, width: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, width, generator=random)
    if kind == "steps":
        return rows.round()
    if kind == "masked":
        return rows.masked_fill(torch.rand(rows.shape, generator=random) < 0.9, -torch.inf)
    if kind == "zeros":
        return torch.where(rows > 0, 0.0, -0.0)
    return rows.bfloat16().float() if kind == "bfloat16" else rows


rows = st.builds(
    rows_of,
    st.sampled_from(["normal", "bfloat16", "steps", "masked", "zeros"]),
    st.sampled_from(WIDTHS),
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=200, deadline=None)
@given(rows=rows, k=st.integers(1, 400))
def test_best_first_and_the_lowest_among_equals(rows, k):
    k = min(k, rows.shape[1])
    expected = rows.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    assert highest(rows, k).tolist() == expected.tolist()


@settings(max_examples=200, deadline=None)
@given(rows=rows, dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_first_of_the_highest(rows, dtype):
    rows = rows.to(dtype)
    values, ids = argmax(rows)
    assert torch.equal(values, rows.amax(-1))
    assert ids.tolist() == (rows == rows.amax(-1, keepdim=True)).int().argmax(-1).tolist()


@pytest.mark.parametrize("place", [0, 127, 128, 999, 1000])
def test_one_that_is_no_number_is_the_highest(place):
    rows = torch.randn(2, 1001)
    rows[1, place] = torch.nan
    values, ids = argmax(rows)
    assert values.isnan().tolist() == [False, True]
    assert ids[1] == place


def test_rows_of_a_wider_tensor():
    wide = torch.randn(4, 1100)
    rows = wide[:, :1000]
    assert highest(rows, 7).tolist() == highest(rows.clone(), 7).tolist()
    assert argmax(rows)[1].tolist() == argmax(rows.clone())[1].tolist()


def test_bits_are_in_the_order_of_their_values():
    values = torch.tensor([-torch.inf, -3e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3e38, torch.inf])
    bits = ordered_bits(values).tolist()
    assert bits == sorted(bits)
    assert len(set(bits)) == len(bits) - 1  # the zeros are equal
