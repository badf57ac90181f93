"""The samplers, numpy's and the compiled one, against what every backend's is held to."""

import functools
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from backplane_core.messages import Grammar
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from backplane_core.watermark import green_ids
from backplane_llamacpp.logits_processors import GreenList, needs_only_argmax
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.llamacpp.row_samplers import (
    KINDS,
    LIBRARY,
    AnySampler,
    assert_kept,
    each_kind,
    sampler_for,
)
from tests.sampling.rows import random_requests, sequence
from tests.sampling.rules import SamplingRules, check_random_parameters


class TestSamplers(SamplingRules):
    assert_kept = staticmethod(assert_kept)

    @pytest.fixture(params=each_kind)
    def sampler_for(self, request: pytest.FixtureRequest) -> Callable[..., AnySampler]:
        return functools.partial(_sampler_for, request.param)


def _sampler_for(kind: str, n_vocab: int, suppressed: tuple[int, ...] = ()) -> AnySampler:
    return sampler_for(n_vocab, kind, suppressed)


@settings(max_examples=600, deadline=None)
@given(kind=st.sampled_from(KINDS if LIBRARY else KINDS[:-1]), **random_requests)
def test_random_parameters_against_the_reference(kind: str, **request: Any) -> None:
    check_random_parameters(sampler_for(48, kind), assert_kept, **request)


@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_the_green_list_is_cores(gamma: float) -> None:
    greens = GreenList(500)
    for previous in (0, 3, 499, 128_000, 3):
        found = np.flatnonzero(greens.after(previous, gamma)).tolist()
        assert found == green_ids(previous, 500, gamma)


@pytest.mark.parametrize(
    "not_plain",
    [
        {"temperature": 0.5},
        {"logit_bias": {1: 1.0}},
        {"repetition_penalty": 1.1},
        {"frequency_penalty": 0.1},
        {"presence_penalty": 0.1},
        {"watermark": Watermark()},
    ],
)
def test_the_fast_path_is_for_plain_greedy_alone(not_plain: dict[str, object]) -> None:
    plain = sequence([1], [], SamplingParams(temperature=0.0))
    assert needs_only_argmax([plain])
    other = SamplingParams(**{"temperature": 0.0} | not_plain)
    assert not needs_only_argmax([plain, sequence([1], [], other)])
    waiting = StoppingParams(max_new_tokens=5, min_new_tokens=1)
    held = sequence([1], [], SamplingParams(temperature=0.0), stopping=waiting)
    assert not needs_only_argmax([held])
    guided = sequence([1], [], SamplingParams(temperature=0.0))
    grammar = Grammar(kind="regex", source="a")
    guided.request = msgspec.structs.replace(guided.request, grammar=grammar)
    assert not needs_only_argmax([plain, guided])
