"""What tests of every backend's sampler share: sequences, masks, parameters, and rows to ask."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pytest
from backplane_core.batching.sequence import Sequence
from backplane_core.messages import Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from hypothesis import strategies as st

Logits = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
Score = tuple[float, list[tuple[int, float]]]


class RowSampler(Protocol):
    """A backend's sampler, asked for one row at a time. Rows are left as they were."""

    def sample(
        self, seq_id: int, one: Sequence, logits: Logits, mask: Mask | None = None
    ) -> int: ...

    def logprobs(self, logits: Logits, token_id: int, num_top: int) -> Score: ...


class Guide:
    """In a guide's place: one mask, there at once."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask

    def allowed(self) -> memoryview:
        return memoryview(self._mask)


def guided(one: Sequence, mask: Mask | None) -> Sequence:
    """The sequence, under a grammar that gives this mask, where there is one."""
    if mask is not None:
        one.guide = Guide(mask)  # type: ignore[assignment] -- a mask is all that is asked
    return one


def assert_shares(
    kept: dict[int, float], expected: dict[int, float], *, least: float, near: float
) -> None:
    """That the tokens above `least` are those expected, with these probabilities."""
    kept = {key: part for key, part in kept.items() if part > least}
    expected = {key: part for key, part in expected.items() if part > least}
    assert list(kept) == list(expected)
    assert list(kept.values()) == pytest.approx(list(expected.values()), abs=near)


def packed(allowed: Iterable[int], n_vocab: int) -> Mask:
    return np.packbits(np.isin(np.arange(n_vocab), list(allowed)), bitorder="little")


def sequence(
    prompt: list[int],
    output: list[int],
    params: SamplingParams,
    *,
    index: int = 0,
    stopping: StoppingParams | None = None,
    eos: frozenset[int] = frozenset(),
) -> Sequence:
    request = Submit(
        request_id="s-0",
        prompt=[TokenSegment(token_ids=prompt)],
        sampling=params,
        stopping=stopping or StoppingParams(max_new_tokens=100),
    )
    return Sequence(
        request=request,
        index=index,
        token_ids=prompt + output,
        num_prompt_tokens=len(prompt),
        eos_token_ids=eos,
    )


def with_seed(params: SamplingParams, seed: int) -> SamplingParams:
    names = SamplingParams.__struct_fields__
    return SamplingParams(**{name: getattr(params, name) for name in names} | {"seed": seed})


def masking(masked: list[int], num_output: int) -> dict[str, object]:
    minimum = num_output + 1 if masked else 0
    return {
        "eos": frozenset(masked),
        "stopping": StoppingParams(max_new_tokens=100, min_new_tokens=minimum),
    }


# Three decimals keep thresholds away from rounding; 0 and 1, where they are switches, are there.
share = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
token_ids = st.lists(st.integers(0, 47), max_size=12)
random_params = st.builds(
    SamplingParams,
    watermark=st.none()
    | st.builds(Watermark, gamma=st.sampled_from([0.25, 0.5]), delta=st.sampled_from([2.0, -1.0])),
    logit_bias=st.dictionaries(
        st.integers(0, 47), st.sampled_from([-100.0, -1.5, 2.5]), max_size=4
    ),
    repetition_penalty=st.sampled_from([0.8, 1.0, 1.0, 1.3, 2.0]),
    frequency_penalty=st.sampled_from([-0.5, 0.0, 0.0, 0.7]),
    presence_penalty=st.sampled_from([-1.0, 0.0, 0.0, 0.9]),
    temperature=st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.7]),
    top_k=st.integers(0, 60),
    top_p=share,
    min_p=share,
    typical_p=share,
    seed=st.integers(0, 2**64 - 1),
)

# What `check_random_parameters` takes beside a sampler.
random_requests = {
    "params": random_params,
    "prompt": token_ids.filter(bool),
    "output": token_ids,
    "allowed": st.none() | st.sets(st.integers(0, 47), min_size=1),
    "masked": st.lists(st.integers(0, 47), max_size=3, unique=True),
    "random_state": st.integers(0, 2**32 - 1),
}
