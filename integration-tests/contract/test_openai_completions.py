"""Text completions through OpenAI's own client."""

import json

import pytest
from contract.wire import COMPLETIONS, DONE, answered, frames, is_compact, post, streamed
from openai import OpenAI, UnprocessableEntityError

GREEDY = {"model": "tgi", "temperature": 0}
KEYS = ["object", "id", "created", "model", "system_fingerprint", "choices", "usage"]


@pytest.fixture(scope="module")
def client(echo):
    return OpenAI(base_url=f"{echo.url}/v1", api_key="unused", max_retries=0)


def complete(client, prompt, **options):
    return client.completions.create(**{**GREEDY, **options}, prompt=prompt)


def test_a_whole_answer(client, echo):
    answer = complete(client, "hello")
    (choice,) = answer.choices
    assert (choice.index, choice.text, choice.finish_reason) == (0, "hello", "stop")
    assert choice.logprobs is None
    assert answer.id.startswith("cmpl-")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 6)
    response = post(echo, COMPLETIONS, {**GREEDY, "prompt": "hello"})
    assert response.content.startswith(b'{"object":"text_completion","id":"cmpl-')
    assert is_compact(response.content)
    assert list(response.json()) == KEYS
    keys = ["index", "text", "logprobs", "finish_reason"]
    assert list(response.json()["choices"][0]) == keys


def test_a_stream(client, echo):
    body = {**GREEDY, "prompt": "hello", "stream": True, "stream_options": {"include_usage": True}}
    data = frames(post(echo, COMPLETIONS, body).content)
    assert data.pop() == DONE.encode()
    chunks = [json.loads(piece) for piece in data]
    assert all(list(chunk) == KEYS for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["text"] for choice in choices) == "hello"
    assert [choice["finish_reason"] for choice in choices][-1] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("abc", ["abc"]),
        (["abc", "de"], ["abc", "de"]),
        ([97, 98, 99], ["abc"]),
        ([[97, 98], [99]], ["ab", "c"]),
    ],
    ids=["text", "texts", "ids", "lists of ids"],
)
def test_prompts_of_every_form_are_answered_in_their_order(client, prompt, texts):
    answer = complete(client, prompt)
    assert [choice.text for choice in answer.choices] == texts
    assert [choice.index for choice in answer.choices] == list(range(len(texts)))


def test_several_prompts_times_n(client):
    answer = complete(client, ["abc", "de"], n=2, temperature=1, seed=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


@pytest.mark.parametrize("stop", ["cd", ["zz", "cd"]], ids=["string", "list"])
def test_stop_text_is_taken_out(client, stop):
    (choice,) = complete(client, "abcdef", stop=stop).choices
    assert (choice.text, choice.finish_reason) == ("ab", "stop")


def test_logprobs_are_parallel_lists(client):
    (choice,) = complete(client, "abc", logprobs=2, max_tokens=3).choices
    logprobs = choice.logprobs
    assert logprobs.tokens == ["a", "b", "c"]
    assert logprobs.text_offset == [0, 1, 2]
    assert all(logprob <= 0 for logprob in logprobs.token_logprobs)
    assert [len(step) for step in logprobs.top_logprobs] == [2, 2, 2]


def test_echo_puts_the_prompt_before_the_text(client):
    (choice,) = complete(client, "abc", echo=True, max_tokens=2).choices
    assert choice.text == "abcab"


def test_echo_with_logprobs_has_those_of_the_prompt(client):
    (choice,) = complete(client, "abc", echo=True, logprobs=1, max_tokens=2).choices
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens).endswith("abcab")
    assert logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in logprobs.token_logprobs[1:])
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)


def test_echo_streams(echo):
    body = {**GREEDY, "prompt": "abc", "echo": True, "max_tokens": 2, "stream": True}
    *chunks, end = streamed(echo, COMPLETIONS, body)
    assert end == DONE
    assert "".join(one["text"] for chunk in chunks for one in chunk["choices"]) == "abcab"


def test_best_of_returns_the_likeliest(client):
    options = {"temperature": 1, "seed": 9, "logprobs": 0, "max_tokens": 6}
    both = complete(client, "hello", n=2, **options).choices
    (best,) = complete(client, "hello", n=1, extra_body={"best_of": 2}, **options).choices

    def mean(choice):
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    assert both[0].text != both[1].text
    assert best.text == max(both, key=mean).text
    assert best.index == 0


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"prompt": ["a"] * 5}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
    ],
    ids=str,
)
def test_what_is_refused_names_its_parameter(client, options, parameter):
    with pytest.raises(UnprocessableEntityError) as refused:
        complete(client, **{"prompt": "hello", **options})
    assert refused.value.param == parameter


def test_max_tokens_left_out_is_the_rest_of_the_context(echo):
    body = {**GREEDY, "prompt": "x" * 3900, "ignore_eos": True}
    answer = answered(echo, COMPLETIONS, body)
    assert answer["usage"]["total_tokens"] == 4096
    assert answer["choices"][0]["finish_reason"] == "length"


def test_seeds_repeat(client):
    options = {"temperature": 1, "seed": 11}
    first = complete(client, "abcdefgh", **options).choices[0].text
    assert complete(client, "abcdefgh", **options).choices[0].text == first
    others = {
        complete(client, "abcdefgh", **{**options, "seed": seed}).choices[0].text
        for seed in range(4)
    }
    assert others - {first}
