"""Products in bfloat16 by the compiled library, against float64; 8 bits: `test_int8_products`."""

import pytest
import torch
from backplane_torch.engine.devices.native import library
from backplane_torch.engine.devices.panel_product import PanelProduct, multiplies
from hypothesis import given, settings
from hypothesis import strategies as st

KERNELS = library.load()
pytestmark = pytest.mark.skipif(
    KERNELS is None or not multiplies(KERNELS, torch.empty(32, 2, dtype=torch.bfloat16)),
    reason="nothing is compiled for this processor's bfloat16",
)


def problem(num_rows, width, num_outputs, seed=7):
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_rows, width, generator=draws).bfloat16()
    weight = torch.randn(num_outputs, width, generator=draws).bfloat16()
    return rows, weight, torch.randn(num_outputs, generator=draws)


def product(weight, bias=None):
    return PanelProduct(KERNELS, weight, bias=bias)


@settings(deadline=None)
@given(
    # Tiles of every height, whole ones and several, and more rows than a task has.
    st.one_of(st.integers(0, 40), st.integers(90, 100), st.just(300)),
    st.integers(1, 80).map(lambda pair: 2 * pair),
    st.integers(1, 9).map(lambda panels: 32 * panels),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_sums_are_rounded_once(num_rows, width, num_outputs, with_bias, seed):
    rows, weight, bias = problem(num_rows, width, num_outputs, seed)
    added = bias if with_bias else None
    exact = rows.double() @ weight.double().t() + (bias.double() if with_bias else 0.0)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2**-8)):
        made = product(weight, added)(rows, None, dtype)
        assert made.dtype == dtype
        torch.testing.assert_close(made.double(), exact, rtol=bound, atol=1e-4)


def test_a_row_is_the_same_whatever_stands_beside_it():
    rows, weight, bias = problem(150, 256, 64)
    by_weight = product(weight, bias)
    together = by_weight(rows, None, torch.float32)
    for row in (0, 11, 97, 149):
        assert torch.equal(
            by_weight(rows[row : row + 1], None, torch.float32), together[row : row + 1]
        )


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_no_number_stays_in_its_row(broken):
    rows, weight, _ = problem(3, 64, 32)
    rows[1, 5] = broken
    made = product(weight)(rows, None, torch.bfloat16)
    assert made.isfinite().all(1).tolist() == [True, False, True]


def test_what_it_does_not_multiply(monkeypatch):
    bfloat16 = torch.bfloat16
    assert multiplies(KERNELS, torch.empty(64, 6, dtype=bfloat16))
    assert not multiplies(KERNELS, torch.empty(48, 6, dtype=bfloat16))
    assert not multiplies(KERNELS, torch.empty(64, 7, dtype=bfloat16))
    assert not multiplies(KERNELS, torch.empty(64, 0, dtype=bfloat16))
    assert not multiplies(KERNELS, torch.empty(64, 6))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert not multiplies(KERNELS, torch.empty(64, 6, dtype=bfloat16))
