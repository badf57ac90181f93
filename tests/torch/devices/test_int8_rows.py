"""Rows in 8 bits, by torch's operations and by the compiled ones, which give the same."""

import pytest
import torch
from backplane_torch.engine.devices.int8_rows import (
    LARGEST,
    SMALLEST_SCALE,
    ZERO,
    CompiledRows,
    TorchRows,
)
from backplane_torch.engine.devices.native import library
from hypothesis import given, settings
from hypothesis import strategies as st

KERNELS = library.load()
needs_kernels = pytest.mark.skipif(KERNELS is None, reason="nothing is compiled")
DTYPES = [torch.float32, torch.bfloat16]
both = pytest.mark.parametrize(
    "rows",
    [
        pytest.param(TorchRows(), id="torch"),
        pytest.param(KERNELS and CompiledRows(KERNELS), id="compiled", marks=needs_kernels),
    ],
)
every_type = pytest.mark.parametrize("dtype", DTYPES)


@both
@every_type
def test_rows_are_rounded_to_the_nearest_step_each_by_its_own_scale(rows, dtype):
    source = torch.tensor([[127.0, -127.0, 63.25, 0.75], [0.0, 0.0, 0.0, 0.0]]).to(dtype)
    values, scales = rows.quantize(source)
    assert values.dtype == torch.uint8
    assert values.tolist() == [[255, 1, 191, 129], [128, 128, 128, 128]]
    assert scales.tolist() == [[1.0], [torch.tensor(SMALLEST_SCALE).item()]]
    assert scales.dtype == torch.float32


@both
@every_type
def test_no_value_is_further_from_its_number_than_half_a_step(rows, dtype):
    torch.manual_seed(7)
    source = (torch.randn(500, 64) * torch.logspace(-20, 20, 500).unsqueeze(1)).to(dtype)
    values, scales = rows.quantize(source)
    wide = scales.double()
    error = ((values.double() - ZERO) * wide - source.double()).abs()
    assert (error <= 0.50001 * wide).all()
    assert (values.double() - ZERO).abs().max() == LARGEST


@both
@every_type
@pytest.mark.parametrize("broken", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_no_numbers_becomes_none_and_leaves_the_others_alone(rows, dtype, broken):
    source = torch.ones(3, 100, dtype=dtype)
    source[1, 77] = broken
    values, scales = rows.quantize(source)
    assert scales.flatten()[[0, 2]].tolist() == [torch.tensor(1 / LARGEST).item()] * 2
    assert values[[0, 2]].unique().tolist() == [ZERO + LARGEST]
    assert not scales[1].isfinite().any()
    finished = rows.finish(torch.ones(3, 20), scales, None, dtype)
    assert finished.isfinite().all(dim=1).tolist() == [True, False, True]


@both
@every_type
@pytest.mark.parametrize("shape", [(0, 40), (1, 0, 40), (2, 3, 40)])
def test_shapes_stay(rows, dtype, shape):
    values, scales = rows.quantize(torch.ones(shape, dtype=dtype))
    assert values.shape == shape
    assert scales.shape == (*shape[:-1], 1)
    finished = rows.finish(torch.ones(*shape[:-1], 30), scales, torch.ones(30), dtype)
    assert finished.shape == (*shape[:-1], 30)
    assert finished.dtype == dtype


@both
def test_what_is_finished_is_rounded_once_to_the_nearest_and_even_number(rows):
    near = torch.tensor([[1.0, 1 + 2**-8, 1 + 2**-8 + 2**-20, 1 + 3 * 2**-8, -1 - 3 * 2**-8]])
    finished = rows.finish(near, torch.ones(1, 1), None, torch.bfloat16)
    assert finished.tolist() == [[1.0, 1.0, 1 + 2**-7, 1 + 2**-6, -1 - 2**-6]]
    largest = torch.tensor([[torch.finfo(torch.float32).max]])
    assert rows.finish(largest, torch.ones(1, 1), None, torch.bfloat16).tolist() == [[torch.inf]]


@st.composite
def sources(draw):
    """Rows of all magnitudes, some of them views into wider or turned memory."""
    dtype = draw(st.sampled_from(DTYPES))
    # 600 wide ones are shared out among threads.
    num_rows, width = draw(st.sampled_from([0, 1, 2, 7, 600])), draw(st.integers(1, 300))
    draws = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    layout = draw(st.sampled_from(["plain", "every other", "turned", "middle"]))
    shape = {
        "plain": (num_rows, width),
        "every other": (num_rows, 2 * width),
        "turned": (width, num_rows),
        "middle": (num_rows, width + 16),
    }[layout]
    magnitude = 10.0 ** draw(st.integers(-40, 38))
    memory = (torch.randn(shape, generator=draws) * magnitude).to(dtype)
    return {
        "plain": memory,
        "every other": memory[:, ::2],
        "turned": memory.t(),
        "middle": memory[:, 8:-8],
    }[layout]


@needs_kernels
@settings(deadline=None)
@given(sources())
def test_the_compiled_ones_quantize_bit_for_bit_as_torch_does(source):
    values, scales = CompiledRows(KERNELS).quantize(source)
    expected_values, expected_scales = TorchRows().quantize(source)
    assert torch.equal(scales, expected_scales)
    finite = scales.isfinite().flatten()
    assert torch.equal(values[finite], expected_values[finite])


@needs_kernels
@settings(deadline=None)
@given(
    st.sampled_from([0, 1, 3, 600]),
    st.integers(1, 300),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.integers(-30, 30),
)
def test_the_compiled_ones_finish_as_torch_does(num_rows, width, dtype, with_bias, exponent):
    draws = torch.Generator().manual_seed(width)
    product = torch.randn(num_rows, width, generator=draws) * 10.0**exponent
    scales = torch.rand(num_rows, 1, generator=draws)
    bias = torch.randn(width, generator=draws) if with_bias else None
    expected = TorchRows().finish(product.clone(), scales, bias, dtype)
    finished = CompiledRows(KERNELS).finish(product.clone(), scales, bias, dtype)
    if with_bias:  # where a processor rounds a product and a sum at once
        torch.testing.assert_close(finished, expected)
    else:
        assert torch.equal(finished, expected)


@both
@every_type
def test_a_row_is_the_same_whatever_stands_beside_it(rows, dtype):
    torch.manual_seed(7)
    source, product = torch.randn(700, 130).to(dtype), torch.randn(700, 90)
    bias = torch.randn(90)
    values, scales = rows.quantize(source)
    finished = rows.finish(product.clone(), scales, bias, dtype)
    for row in (0, 333, 699):
        alone = slice(row, row + 1)
        own_values, own_scales = rows.quantize(source[alone])
        assert torch.equal(own_values, values[alone])
        assert torch.equal(own_scales, scales[alone])
        own = rows.finish(product[alone].clone(), own_scales, bias, dtype)
        assert torch.equal(own, finished[alone])


@both
@every_type
def test_whatever_type_tensors_have_by_themselves(rows, dtype):
    source = torch.randn(9, 64).to(dtype)
    values, scales = rows.quantize(source)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        others, other_scales = rows.quantize(source)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(values, others)
    assert torch.equal(scales, other_scales)
