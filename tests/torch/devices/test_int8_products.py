"""Products in 8 bits, by oneDNN and by the compiled one, against exact integers."""

import pytest
import torch
from backplane_torch.engine.devices.int8_linear import computes_int8
from backplane_torch.engine.devices.int8_products import (
    CompiledProduct,
    OneDnnProduct,
    fastest_product,
)
from backplane_torch.engine.devices.int8_rows import CompiledRows, TorchRows, fastest_rows
from backplane_torch.engine.devices.native import library
from backplane_torch.engine.devices.panel_product import multiplies
from hypothesis import given, settings
from hypothesis import strategies as st

KERNELS = library.load()
ABLE = KERNELS is not None and multiplies(KERNELS, torch.empty(32, 4, dtype=torch.int8))
needs_product = pytest.mark.skipif(not ABLE, reason="nothing is compiled for this processor")
pytestmark = pytest.mark.skipif(not computes_int8(), reason="the CPU has no 8-bit products")


def onednn(steps, scales, bias):
    return OneDnnProduct(steps, scales, bias, TorchRows())


def compiled(steps, scales, bias):
    return CompiledProduct(steps, scales, bias, KERNELS)


both = pytest.mark.parametrize("kind", [onednn, pytest.param(compiled, marks=needs_product)])


def problem(num_rows, width, num_outputs, seed=7):
    draws = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (num_rows, width), generator=draws, dtype=torch.uint8)
    steps = torch.randint(-127, 128, (num_outputs, width), generator=draws, dtype=torch.int8)
    row_scales = torch.rand(num_rows, 1, generator=draws)
    return values, row_scales, steps, torch.rand(num_outputs, generator=draws)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
def test_sums_are_exact_and_rounded_once(kind, dtype, with_bias):
    values, row_scales, steps, scales = problem(19, 300, 96)
    bias = torch.randn(96) if with_bias else None
    product = kind(steps, scales, bias)(values, row_scales, dtype)
    sums = (values.double() - 128) @ steps.double().t()
    exact = sums * scales * row_scales + (0 if bias is None else bias)
    assert product.dtype == dtype
    bounds = {torch.float32: 3e-7, torch.bfloat16: 2**-8}
    torch.testing.assert_close(product.double(), exact, rtol=bounds[dtype], atol=2e-3)


@needs_product
@settings(deadline=None)
@given(
    # Tiles of every height, whole ones and several, and more rows than a task has.
    st.one_of(st.integers(0, 40), st.integers(90, 100), st.just(500)),
    st.integers(1, 40).map(lambda quarter: 4 * quarter),
    st.integers(1, 9).map(lambda panels: 32 * panels),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**32),
)
def test_the_compiled_one_is_onednns_bit_for_bit(num_rows, width, num_outputs, dtype, seed):
    values, row_scales, steps, scales = problem(num_rows, width, num_outputs, seed)
    product = compiled(steps, scales, None)(values, row_scales, dtype)
    assert product.shape == (num_rows, num_outputs)
    if num_rows:  # oneDNN has no product of nothing
        assert torch.equal(product, onednn(steps, scales, None)(values, row_scales, dtype))


@both
def test_a_row_is_the_same_whatever_stands_beside_it(kind):
    values, row_scales, steps, scales = problem(150, 256, 64)
    product = kind(steps, scales, torch.ones(64))
    together = product(values, row_scales, torch.float32)
    for row in (0, 11, 97, 149):
        alone = slice(row, row + 1)
        own = product(values[alone], row_scales[alone], torch.float32)
        assert torch.equal(own, together[alone])


@both
def test_leading_dimensions_stay(kind):
    values, row_scales, steps, scales = problem(6, 64, 32)
    product = kind(steps, scales, None)
    shaped = product(values.view(1, 2, 3, 64), row_scales.view(1, 2, 3, 1), torch.bfloat16)
    assert shaped.shape == (1, 2, 3, 32)
    assert torch.equal(shaped.view(6, 32), product(values, row_scales, torch.bfloat16))


@both
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_become_none(kind, broken):
    values, row_scales, steps, scales = problem(3, 64, 32)
    row_scales[1], values[1] = broken, 128
    product = kind(steps, scales, None)(values, row_scales, torch.bfloat16)
    assert product.isnan().all(1).tolist() == [False, True, False]
    assert product[[0, 2]].isfinite().all()


@both
def test_two_weights_do_not_know_each_other(kind):
    values, row_scales, steps, scales = problem(3, 64, 32)
    first, second = kind(steps, scales, None), kind(-steps, scales, None)
    one = first(values, row_scales, torch.float32)
    other = second(values, row_scales, torch.float32)
    assert torch.equal(one, -other)
    assert torch.equal(first(values, row_scales, torch.float32), one)


@needs_product
@pytest.mark.parametrize(
    ("num_outputs", "width", "kind"),
    [(32, 4, CompiledProduct), (48, 64, OneDnnProduct), (64, 66, OneDnnProduct)],
)
def test_shapes_that_the_compiled_one_does_not_know_are_onednns(num_outputs, width, kind):
    _, _, steps, scales = problem(0, width, num_outputs)
    assert type(fastest_product(steps, scales, None, CompiledRows(KERNELS))) is kind
    assert type(fastest_product(steps, scales, None, TorchRows())) is OneDnnProduct


@needs_product
def test_where_there_is_amx_onednn_multiplies(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    _, _, steps, scales = problem(0, 64, 64)
    assert type(fastest_product(steps, scales, None, fastest_rows())) is OneDnnProduct
