"""OpenAI's client meets models, keys and refusals: each as the class that it has for it."""

import pytest
from contract.conftest import ECHO
from contract.wire import user
from deployment import deployed, wait_until
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
    UnprocessableEntityError,
)

KEY = "Sesame"
ASK = {"model": "tgi", "messages": user("hello"), "temperature": 0}


def client_of(deployment, key="unused", client=OpenAI):
    return client(base_url=f"{deployment.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def keyed():
    with deployed(
        *ECHO,
        *("--api-key", KEY, "--max-concurrent-requests", "1", "--strict-model-name"),
        *("--echo.step-seconds", "0.05", "--echo.fail-on", "FAIL"),
        wait=False,  # which asks /health, and that wants a key
    ) as deployment:
        wait_until(lambda: deployment.status("/health/ready") == 200, 60, "ready")
        yield deployment


def test_models_are_listed_and_retrieved(echo):
    client = client_of(echo)
    (model,) = client.models.list().data
    assert model.id == "echo:contract"
    assert client.models.retrieve("echo:contract") == model
    with pytest.raises(NotFoundError) as missing:
        client.models.retrieve("nobody")
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize("key", ["wrong", KEY.lower(), KEY + "x"], ids=["wrong", "case", "longer"])
def test_a_wrong_key_is_an_authentication_error(keyed, key):
    """TGI compares keys without regard to case."""
    with pytest.raises(AuthenticationError):
        client_of(keyed, key).models.list()
    with pytest.raises(AuthenticationError):
        client_of(keyed, key).chat.completions.create(**ASK)


def test_the_right_key_is_let_in(keyed):
    (model,) = client_of(keyed, KEY).models.list().data
    answer = client_of(keyed, KEY).chat.completions.create(**{**ASK, "model": model.id})
    assert answer.choices[0].message.content == "hello"


def test_a_strict_server_knows_its_names(keyed):
    with pytest.raises(NotFoundError) as missing:
        client_of(keyed, KEY).chat.completions.create(**{**ASK, "model": "gpt-5"})
    assert missing.value.code == "model_not_found"
    assert "gpt-5" in missing.value.message


def test_a_full_server_is_a_rate_limit(keyed):
    client = client_of(keyed, KEY)
    ask = {**ASK, "model": "echo:contract", "messages": user("x" * 60)}
    with client.chat.completions.create(**ask, stream=True) as stream:
        next(iter(stream))
        for streams in (False, True):
            with pytest.raises(RateLimitError) as full:
                client.chat.completions.create(**ask, stream=streams)
            assert int(full.value.response.headers["retry-after"]) >= 1


def test_a_failed_engine_is_an_error_with_its_status(keyed):
    ask = {**ASK, "model": "echo:contract", "messages": user("FAIL")}
    with pytest.raises(APIStatusError) as failed:
        client_of(keyed, KEY).chat.completions.create(**ask)
    assert failed.value.status_code == 424
    assert failed.value.type == "server_error"


def test_an_engine_that_fails_in_a_stream_is_an_error_in_it(keyed):
    ask = {**ASK, "model": "echo:contract", "messages": user("FAIL")}
    stream = client_of(keyed, KEY).chat.completions.create(**ask, stream=True)
    with pytest.raises(APIError) as failed:
        list(stream)
    assert failed.value.type == "server_error"
    assert failed.value.body["http_status_code"] == 424


def test_a_server_that_loads_is_unavailable():
    with deployed(*ECHO, "--echo.load-seconds", "30", wait=False) as loading:
        wait_until(lambda: loading.status("/health/live") == 200, 30, "the server is up")
        with pytest.raises(InternalServerError) as refused:
            client_of(loading).chat.completions.create(**ASK)
        assert refused.value.status_code == 503


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 0}, "n"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 10**7}, "max_completion_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"messages": []}, "messages"),
        ({"response_format": {"type": "poem"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_refused_names_its_parameter(echo, options, parameter, stream):
    """The status is real for streams too: the refusal comes before the first byte."""
    with pytest.raises(UnprocessableEntityError) as refused:
        client_of(echo).chat.completions.create(**{**ASK, **options}, stream=stream)
    assert refused.value.param.split(".")[0].split("[")[0] == parameter
    assert refused.value.type == "invalid_request_error"
    assert parameter in refused.value.message


async def test_the_asynchronous_client(echo):
    async with client_of(echo, client=AsyncOpenAI) as client:
        answer = await client.chat.completions.create(**ASK)
        assert answer.choices[0].message.content == "hello"
        stream = await client.chat.completions.create(**ASK, stream=True)
        text = "".join([one.delta.content or "" async for chunk in stream for one in chunk.choices])
        assert text == "hello"
        with pytest.raises(UnprocessableEntityError):
            await client.chat.completions.create(**{**ASK, "temperature": -1})
