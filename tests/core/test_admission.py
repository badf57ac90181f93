"""A runner that promises nothing is asked for nothing; the refusal names parameter and backend."""

import math

import pytest
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.capability_check import unsupported
from backplane_core.errors import OverloadedError, UnsupportedError, ValidationError
from backplane_core.messages import (
    Grammar,
    MediaSegment,
    ModelInfo,
    RunnerInfo,
    Submit,
    TokenSegment,
)
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary
from backplane_core.worker.admission import check_request
from backplane_core.worker.in_flight import InFlight


def info_with(**capabilities) -> RunnerInfo:
    return RunnerInfo(
        model=ModelInfo(model_id="m", backend="bare", backend_version="0", device="cpu"),
        limits=Limits(
            max_total_tokens=20,
            max_input_tokens=10,
            max_batch_tokens=8,
            max_sequences=2,
            max_waiting_requests=2,
            cache_tokens=40,
        ),
        capabilities=Capabilities(**capabilities),
        vocabulary=Vocabulary(tokens=[b"a", b"b", b"c"]),
        tokenizer=RemoteTokenizer(),
    )


def request_with(**fields) -> Submit:
    fields.setdefault("prompt", [TokenSegment(token_ids=[0, 1])])
    fields.setdefault("stopping", StoppingParams(max_new_tokens=4))
    return Submit(request_id="s0-0", **fields)


UNSUPPORTED = {
    **{
        name: {"sampling": SamplingParams(**{name: value})}
        for name, value in {
            "watermark": Watermark(),
            "logit_bias": {1: 1.0},
            "repetition_penalty": 1.1,
            "frequency_penalty": 0.5,
            "presence_penalty": 0.5,
            "temperature": 0.5,
            "top_k": 5,
            "top_p": 0.5,
            "min_p": 0.5,
            "typical_p": 0.5,
        }.items()
    },
    "min_new_tokens": {"stopping": StoppingParams(max_new_tokens=4, min_new_tokens=1)},
    "stop_token_ids": {"stopping": StoppingParams(max_new_tokens=4, stop_token_ids=(1,))},
    "ignore_eos": {"stopping": StoppingParams(max_new_tokens=4, ignore_eos=True)},
    "logprobs": {"top_logprobs": 0},
    "prompt_logprobs": {"prompt_logprobs": 0},
    "num_sequences": {"num_sequences": 2},
    "grammar": {"grammar": Grammar(kind="regex", source="a")},
    "kind": {"kind": "embed"},
    "adapter": {"adapter": "fine-tune"},
    "prompt": {"prompt": [MediaSegment(media_id="x", modality="image", content_hash=b"")]},
}


@pytest.mark.parametrize("parameter", UNSUPPORTED)
def test_what_a_runner_does_not_promise_is_refused(parameter):
    with pytest.raises(UnsupportedError, match="backend bare") as refusal:
        check_request(request_with(**UNSUPPORTED[parameter]), info_with())
    assert refusal.value.parameter == parameter


def test_every_sampling_field_is_covered():
    assert set(SamplingParams.__struct_fields__) <= {*UNSUPPORTED, "seed"}


def test_greedy_and_a_seed_filled_in_need_no_capability():
    check_request(request_with(sampling=SamplingParams(temperature=0.0, seed=7)), info_with())


@pytest.mark.parametrize(
    "mark",
    [
        *({"gamma": gamma} for gamma in (0.0, 1.0, -0.5, math.nan)),
        *({"delta": delta} for delta in (math.inf, math.nan)),
    ],
)
def test_a_watermark_without_a_green_share_is_refused(mark):
    info = info_with(sampling=("watermark",))
    check_request(request_with(sampling=SamplingParams(watermark=Watermark(gamma=0.25))), info)
    with pytest.raises(ValidationError, match="between 0 and 1") as refusal:
        check_request(request_with(sampling=SamplingParams(watermark=Watermark(**mark))), info)
    assert refusal.value.parameter == "watermark"


def test_a_seed_that_was_asked_for_needs_the_capability():
    params = {"sampling": SamplingParams(seed=7), "stopping": StoppingParams(max_new_tokens=1)}
    assert not list(unsupported(Capabilities(), **params))
    (missing,) = unsupported(Capabilities(), **params, seed_asked=True)
    assert missing[0] == "seed"


def test_more_alternatives_than_the_runner_reports_are_refused():
    check_request(request_with(top_logprobs=3), info_with(max_top_logprobs=3))
    with pytest.raises(UnsupportedError, match="at most 3"):
        check_request(request_with(top_logprobs=4), info_with(max_top_logprobs=3))


@pytest.mark.parametrize(
    ("num_prompt", "max_new", "fits"), [(10, 10, True), (10, 11, False), (11, 1, False)]
)
def test_lengths_are_exact(num_prompt, max_new, fits):
    request = request_with(
        prompt=[TokenSegment(token_ids=[0] * num_prompt)],
        stopping=StoppingParams(max_new_tokens=max_new),
    )
    if fits:
        check_request(request, info_with())
    else:
        with pytest.raises(ValidationError):
            check_request(request, info_with())


@pytest.mark.parametrize("unknown", [-1, 3])
def test_a_token_that_the_model_does_not_have_is_named(unknown):
    prompt = [TokenSegment(token_ids=[0, unknown, 2])]
    with pytest.raises(
        ValidationError, match=f"token id {unknown}, outside the vocabulary of 3"
    ) as told:
        check_request(request_with(prompt=prompt), info_with())
    assert told.value.parameter == "prompt"


def test_in_flight_counts_sequences_and_frees_them_one_by_one():
    in_flight: InFlight[str] = InFlight(max_sequences=3)
    in_flight.add(request_with(num_sequences=3), "owner")
    with pytest.raises(ValidationError):
        in_flight.add(request_with(), "owner")
    other = Submit(request_id="s0-1", prompt=[], stopping=StoppingParams(max_new_tokens=1))
    with pytest.raises(OverloadedError):
        in_flight.add(other, "owner")
    assert in_flight.finish("s0-0", 1)
    assert not in_flight.finish("s0-0", 1)
    assert in_flight.owner("s0-0", 1) is None
    assert in_flight.owner("s0-0", 0) == "owner"
    in_flight.add(other, "owner")
    assert sorted(in_flight.disown("owner")) == ["s0-0", "s0-1"]
    assert in_flight.finish("s0-0")
    assert in_flight.num_sequences == 1
