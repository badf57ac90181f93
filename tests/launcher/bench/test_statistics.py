import statistics

import pytest
from backplane_launcher.bench.statistics import Distribution, bootstrap_median, percentile
from hypothesis import given
from hypothesis import strategies as st

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=50), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_lie_among_the_values_and_never_fall(values, one, other):
    ordered = sorted(values)
    low, high = sorted((one, other))
    assert ordered[0] <= percentile(ordered, low) <= percentile(ordered, high) <= ordered[-1]


@given(st.lists(FINITE, min_size=2, max_size=50))
def test_percentiles_agree_with_the_standard_library(values):
    ordered = sorted(values)
    quartiles = statistics.quantiles(ordered, n=4, method="inclusive")
    found = [percentile(ordered, share) for share in (25, 50, 75)]
    assert found == pytest.approx(quartiles)


def test_a_distribution_in_another_unit():
    found = Distribution.of([0.003, 0.001, 0.002], 1000)
    assert found is not None
    assert (found.num, found.min, found.p50, found.max) == pytest.approx((3, 1, 2, 3))
    assert found.mean == pytest.approx(2)
    assert Distribution.of([]) is None


@given(st.lists(FINITE, min_size=1, max_size=12))
def test_an_interval_holds_its_median_and_lies_among_the_values(values):
    found = bootstrap_median(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.median == statistics.median(values)
    assert bootstrap_median(values) == found


def test_an_interval_is_as_wide_as_its_values_scatter():
    narrow = bootstrap_median([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01])
    wide = bootstrap_median([1.0, 2.0, 0.5, 1.0, 1.9, 0.4, 1.0, 1.5])
    assert narrow.high - narrow.low < 0.05 < wide.high - wide.low
