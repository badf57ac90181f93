"""What TGI's parameters become: one request, whatever the client left out."""

from types import SimpleNamespace

import msgspec
import pytest
from backplane_core.control import ServerLaunch
from backplane_core.errors import UnsupportedError
from backplane_core.sampling import SamplingParams, Watermark
from backplane_server.dialects.native import plan
from backplane_server.dialects.native_types import CompatGenerateRequest, GenerateRequest
from backplane_server.services.request_checks import check_request

SETTINGS = ServerLaunch(server_id="s", control_path="", model_id="m")
GREEDY = SamplingParams(temperature=0.0)


def planned(parameters=None, *, stream=False, compat=False, tag="text-generation", **settings):
    limits = SimpleNamespace(max_input_tokens=90)
    model = SimpleNamespace(info=SimpleNamespace(limits=limits), pipeline_tag=tag)
    body = msgspec.convert(
        {"inputs": "hi", "parameters": parameters},
        CompatGenerateRequest if compat else GenerateRequest,
    )
    return plan(body, msgspec.structs.replace(SETTINGS, **settings), model, stream=stream)


@pytest.mark.parametrize(
    ("parameters", "sampling"),
    [
        (None, SamplingParams()),
        ({}, GREEDY),
        ({"do_sample": True}, SamplingParams()),
        ({"temperature": 1.0}, GREEDY),
        ({"temperature": 0.5}, SamplingParams(temperature=0.5)),
        ({"top_k": 5}, SamplingParams(top_k=5)),
        ({"top_p": 0.5}, SamplingParams(top_p=0.5)),
        ({"top_p": 1.0}, GREEDY),
        ({"typical_p": 0.5}, SamplingParams(typical_p=0.5)),
        ({"repetition_penalty": 1.2}, SamplingParams(temperature=0.0, repetition_penalty=1.2)),
        ({"frequency_penalty": -2}, SamplingParams(temperature=0.0, frequency_penalty=-2.0)),
        ({"best_of": 2, "temperature": 1.0}, SamplingParams()),
    ],
)
def test_when_tokens_are_drawn(parameters, sampling):
    assert planned(parameters).generation.sampling == sampling


def test_the_watermark_is_the_operators():
    made = planned({"watermark": True}, watermark_gamma=0.25, watermark_delta=4.0)
    assert made.generation.sampling.watermark == Watermark(gamma=0.25, delta=4.0)
    assert planned({"watermark": False}).generation.sampling.watermark is None


@pytest.mark.parametrize(
    ("parameters", "stream", "logprobs", "implied"),
    [
        ({}, False, None, True),
        ({}, True, 0, True),
        ({"details": True}, False, 0, True),
        ({"decoder_input_details": True}, False, 0, True),
        ({"top_n_tokens": 3}, False, None, False),
        ({"top_n_tokens": 3}, True, 3, False),
        ({"top_n_tokens": 3, "details": True}, False, 3, False),
        ({"best_of": 2, "do_sample": True}, False, 0, False),
    ],
)
def test_logprobs_are_asked_for_where_they_are_shown_or_decide(
    parameters, stream, logprobs, implied
):
    made = planned(parameters, stream=stream).generation
    assert made.top_logprobs == logprobs
    assert made.implied_logprobs is implied


@pytest.mark.parametrize(
    ("compat", "asked", "tag", "prefix"),
    [
        (False, None, "text-generation", ""),
        (False, True, "text-generation", "hi"),
        (True, None, "text-generation", "hi"),
        (True, None, "image-text-to-text", ""),
        (True, True, "image-text-to-text", "hi"),
        (True, False, "text-generation", ""),
    ],
)
def test_the_full_text_is_the_compatible_routes_default(compat, asked, tag, prefix):
    assert planned({"return_full_text": asked}, compat=compat, tag=tag).prefix == prefix


@pytest.mark.parametrize(
    ("strict", "flag", "count"),
    [(False, False, 0), (False, True, 0), (True, False, None), (True, True, 0)],
)
def test_the_prompts_logprobs_want_a_flag_strictly(strict, flag, count):
    made = planned({"decoder_input_details": True}, tgi_strict=strict, enable_prefill_logprobs=flag)
    assert made.generation.prompt_logprobs == count
    assert made.details


def test_names_are_the_clients():
    one = planned({}).generation
    several = planned({"best_of": 2, "do_sample": True}).generation
    assert one.name_of("logprobs") == "top_n_tokens"
    assert several.name_of("logprobs") == several.name_of("num_sequences") == "best_of"
    assert one.name_of("prompt_logprobs") == "decoder_input_details"
    assert one.name_of("adapter") == "adapter_id"


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        ({"max_top_logprobs": 0}, "one sequence a request"),
        ({"multiple_sequences": True}, "no logprobs"),
    ],
)
def test_best_of_needs_a_backend_that_forks_and_tells_logprobs(info, capabilities, reason):
    several = planned({"best_of": 2, "do_sample": True}).generation
    short = info(**capabilities)
    with pytest.raises(UnsupportedError, match=f"`best_of` .* backend plain, .*{reason}"):
        check_request(several.fitted_to(short.capabilities), SETTINGS, short)
    able = info(multiple_sequences=True, max_top_logprobs=0)
    check_request(several.fitted_to(able.capabilities), SETTINGS, able)


def test_the_rest_goes_along():
    made = planned(
        {"seed": 2**64 - 1, "stop": "a", "truncate": 7, "adapter_id": "mine", "max_new_tokens": 3}
    ).generation
    assert (made.seed, made.stops, made.keep_stop) == (2**64 - 1, ("a",), True)
    assert (made.truncate, made.adapter, made.max_new_tokens) == (7, "mine", 3)
    assert planned({"adapter_id": ""}).generation.adapter is None
