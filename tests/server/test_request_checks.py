"""Bounds of every dialect's request, held against before it costs anything."""

import pytest
from backplane_core.control import ServerLaunch
from backplane_core.errors import ValidationError
from backplane_core.sampling import SamplingParams
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.request_checks import check_request, fit_to_context

SETTINGS = ServerLaunch(server_id="s", control_path="", model_id="m")
NAMES = {"stop_token_ids": "stop_ids", "prompt": "messages", "max_new_tokens": "max_tokens"}


def request(*, bias=None, **fields):
    return GenerationRequest(
        **{
            "prompt": "hi",
            "add_special": True,
            "sampling": SamplingParams(logit_bias=bias or {}),
            "keep_stop": False,
            "names": NAMES,
            **fields,
        }
    )


def refusal(asked, info, settings=SETTINGS):
    with pytest.raises(ValidationError) as caught:
        check_request(asked, settings, info)
    assert f"`{caught.value.parameter}`" in caught.value.message
    return caught.value


@pytest.mark.parametrize(("setting", "most"), [(0, 20), (5, 20), (20, 20), (30, 30)])
def test_alternatives_are_openais_twenty_or_what_the_operator_allows(info, setting, most):
    settings = ServerLaunch(server_id="s", control_path="", model_id="m", max_top_n_tokens=setting)
    able = info(max_top_logprobs=100, prompt_logprobs=True)
    for name in ("top_logprobs", "prompt_logprobs"):
        check_request(request(**{name: most}), settings, able)
        error = refusal(request(**{name: most + 1}), able, settings)
        assert error.parameter == name
        assert f"at most {most}, not {most + 1}" in error.message
        assert "--max-top-n-tokens, where it is more than 20, raises the limit" in str(error)


def test_tokens_that_are_not_in_the_vocabulary_are_named(info):
    able = info(sampling=("logit_bias",), stopping=("stop_token_ids",))
    for outside in (1, 99999, -1):
        error = refusal(request(bias={0: 1.0, outside: 1.0}), able)
        assert error.parameter == "logit_bias"
        assert f"token {outside}," in error.message
        error = refusal(request(stop_token_ids=(0, outside)), able)
        assert error.parameter == "stop_ids"
    check_request(request(bias={0: 1.0}, stop_token_ids=(0,)), SETTINGS, able)


def test_no_list_is_as_long_as_a_client_likes(info):
    many = 1_000_000
    assert "1024" in refusal(request(bias=dict.fromkeys(range(many), 1.0)), info()).message
    assert "1024" in refusal(request(stop_token_ids=(0,) * many), info()).message
    assert f"Given: {many}" in refusal(request(stops=("a",) * many), info()).message


@pytest.mark.parametrize("stop", ["", "x" * 1001])
def test_stop_strings_have_a_length(info, stop):
    assert refusal(request(stops=("a", stop)), info()).parameter == "stop"


def test_the_sum_is_told_before_the_prompt_with_the_clients_names(info):
    for num_prompt, asked, given in ((95, 10, 10), (101, None, 0), (200, 1, 1)):
        with pytest.raises(ValidationError) as caught:
            fit_to_context(request(max_new_tokens=asked), num_prompt, info())
        assert caught.value.message == (
            f"`messages` tokens + `max_tokens` must be <= 100. Given: {num_prompt} `messages` "
            f"tokens and {given} `max_tokens`"
        )
    for num_prompt, asked in ((91, 5), (91, None), (100, None)):
        with pytest.raises(ValidationError, match=f"less than 91 tokens. Given: {num_prompt}"):
            fit_to_context(request(max_new_tokens=asked), num_prompt, info())
