"""The batch's sampler against what every backend's is held to."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampling.rows import random_requests
from tests.sampling.rules import SamplingRules, check_random_parameters
from tests.torch.sampling.row_sampler import KINDS, TorchRow, assert_kept


class TestBatchSampler(SamplingRules):
    assert_kept = staticmethod(assert_kept)

    @pytest.fixture(params=KINDS)
    def sampler_for(self, request: pytest.FixtureRequest) -> Callable[..., TorchRow]:
        return functools.partial(TorchRow, request.param)


one_for = functools.cache(TorchRow)


@settings(max_examples=600, deadline=None)
@given(kind=st.sampled_from(KINDS), **random_requests)
def test_random_parameters_against_the_reference(kind: str, **request: Any) -> None:
    check_random_parameters(one_for(kind, 48), assert_kept, **request)
