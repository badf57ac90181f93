"""Chats through OpenAI's own client: every parameter with an effect that can be seen."""

import json

import pytest
from contract.wire import CHAT, DONE, answered, frames, is_compact, post, user
from openai import OpenAI

GREEDY = {"model": "tgi", "temperature": 0}
WHOLE_KEYS = ["object", "id", "created", "model", "system_fingerprint", "choices", "usage"]


@pytest.fixture(scope="module")
def client(echo):
    return OpenAI(base_url=f"{echo.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def demo_client(demo):
    return OpenAI(base_url=f"{demo.url}/v1", api_key="unused", max_retries=0)


def said(answer) -> str:
    (choice,) = answer.choices
    return choice.message.content


def ask(client, text, **options):
    return client.chat.completions.create(**{**GREEDY, **options}, messages=user(text))


def test_a_whole_answer(client):
    answer = ask(client, "hello")
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "hello")
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "echo:contract"
    assert answer.system_fingerprint
    assert answer.usage.completion_tokens == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6


def test_the_bytes_of_a_whole_answer(echo):
    response = post(echo, CHAT, {"messages": user("hello"), "temperature": 0})
    assert response.content.startswith(b'{"object":"chat.completion","id":"chatcmpl-')
    assert is_compact(response.content)
    answer = response.json()
    assert list(answer) == WHOLE_KEYS
    (choice,) = answer["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason"]
    assert list(choice["message"])[:2] == ["role", "content"]
    assert list(answer["usage"])[:3] == ["prompt_tokens", "completion_tokens", "total_tokens"]


def test_the_bytes_of_a_stream(echo):
    body = {
        "messages": user("hey"),
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    data = frames(post(echo, CHAT, body).content)
    assert data.pop() == DONE.encode()
    assert all(map(is_compact, data))
    assert all(piece.startswith(b'{"object":"chat.completion.chunk","id":"') for piece in data)
    *chunks, usage = map(json.loads, data)
    for chunk in chunks:
        assert list(chunk) == WHOLE_KEYS
        assert chunk["usage"] is None
        (choice,) = chunk["choices"]
        assert list(choice) == ["index", "delta", "logprobs", "finish_reason"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert all("role" not in delta for delta in deltas[1:])
    assert "".join(delta.get("content") or "" for delta in deltas) == "hey"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4
    assert len({chunk["id"] for chunk in (*chunks, usage)}) == 1


def test_a_stream_without_usage_has_none(client):
    chunks = list(ask(client, "hey", stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_n_choices_are_drawn_apart(client):
    answer = ask(client, "hello world", n=3, temperature=1, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    again = ask(client, "hello world", n=3, temperature=1, seed=5)
    assert again.choices == answer.choices
    assert answer.usage.completion_tokens > answer.usage.prompt_tokens / 3


def test_n_choices_stream_by_index(client):
    chunks = ask(client, "hello world", n=2, temperature=1, seed=5, stream=True)
    texts = {0: "", 1: ""}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    whole = ask(client, "hello world", n=2, temperature=1, seed=5)
    assert [texts[0], texts[1]] == [choice.message.content for choice in whole.choices]


@pytest.mark.parametrize("stop", ["o w", ["zzz", "o w"]], ids=["string", "list"])
@pytest.mark.parametrize("stream", [False, True])
def test_stop_text_is_taken_out(client, stop, stream):
    answer = ask(client, "hello world", stop=stop, stream=stream)
    if stream:
        choices = [choice for chunk in answer for choice in chunk.choices]
        text = "".join(choice.delta.content or "" for choice in choices)
        reason = choices[-1].finish_reason
    else:
        text, reason = said(answer), answer.choices[0].finish_reason
    assert (text, reason) == ("hell", "stop")


def test_logprobs_with_bytes(client):
    answer = ask(client, "hé", logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert [bytes(token.bytes) for token in content[:3]] == [b"h", b"\xc3", b"\xa9"]
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == token.logprob <= 0
        assert token.top_logprobs[0].bytes == token.bytes


def test_logprobs_stream_with_their_tokens(client):
    choices = [
        choice
        for chunk in ask(client, "hey", logprobs=True, stream=True)
        for choice in chunk.choices
    ]
    tokens = [token.token for one in choices if one.logprobs for token in one.logprobs.content]
    assert "".join(tokens).startswith("hey")


def test_logit_bias_lifts_a_token(client):
    assert said(ask(client, "hello", logit_bias={"122": 100}, max_tokens=3)) == "zzz"
    assert "h" not in said(ask(client, "hello", logit_bias={"104": -100}, max_tokens=3))


def test_penalties_are_openais(client):
    """Presence counts once, frequency each time; 0 is no penalty (TGI made 2.0 of it)."""

    # The expected letter's logit is 2.0, the next best has 1.0.
    def first(**penalty):
        return said(ask(client, "aaaaaa", max_tokens=6, **penalty))

    assert first(presence_penalty=0, frequency_penalty=0) == "aaaaaa"
    assert first(presence_penalty=0.9) == "aaaaaa"
    assert first(presence_penalty=1.1)[0:2] != "aa"
    assert first(frequency_penalty=0.6).startswith("aa")
    assert first(frequency_penalty=0.6)[2] != "a"


@pytest.mark.parametrize(
    ("limits", "length"),
    [
        ({"max_tokens": 2}, 2),
        ({"max_completion_tokens": 3}, 3),
        ({"max_tokens": 2, "max_completion_tokens": 3}, 3),
    ],
    ids=str,
)
def test_either_name_limits_the_answer(client, limits, length):
    answer = ask(client, "hello", **limits)
    assert len(said(answer)) == answer.usage.completion_tokens == length
    assert answer.choices[0].finish_reason == "length"


def test_an_end_on_the_last_allowed_token_is_an_end(client):
    """TGI looks at the length first and says `length`."""
    assert ask(client, "hello", max_tokens=6).choices[0].finish_reason == "stop"


def test_top_p_1_and_temperature_0_are_taken(client):
    assert said(ask(client, "hello", top_p=1)) == "hello"
    assert said(ask(client, "hello", temperature=1, top_p=0.001)) == "hello"


@pytest.mark.parametrize(
    ("extension", "text"),
    [
        ({"temperature": 1, "top_k": 1}, "hello"),
        ({"temperature": 1, "min_p": 1.0}, "hello"),
        ({"ignore_eos": True, "max_tokens": 8}, "hellohel"),
        ({"min_tokens": 7, "max_tokens": 7}, None),
        ({"stop_token_ids": [108]}, "he"),
        ({"repetition_penalty": 1.0}, "hello"),
    ],
    ids=str,
)
def test_what_other_servers_have_too(client, extension, text):
    known = {name: extension.pop(name) for name in ("temperature", "max_tokens") & extension.keys()}
    answer = ask(client, "hello", **known, extra_body=extension)
    if text is None:
        assert answer.usage.completion_tokens == 7
    else:
        assert said(answer) == text


def test_nulls_are_left_out_parameters(echo):
    names = ("n", "stop", "seed", "stream", "stream_options", "logprobs", "top_logprobs", "tools")
    names += ("tool_choice", "response_format", "logit_bias", "max_tokens", "top_p", "user")
    body = {"messages": user("hello"), "temperature": 0, **dict.fromkeys(names)}
    assert answered(echo, CHAT, body)["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize("name", ["tgi", "gpt-5", "echo:contract", None])
def test_any_model_name_is_answered_by_the_model_there_is(echo, name):
    body = {"messages": user("hello"), "temperature": 0, "model": name}
    assert answered(echo, CHAT, body)["model"] == "echo:contract"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}],
        "hello",
    ],
    ids=["parts", "string"],
)
def test_content_is_text_or_parts_of_it(echo, content):
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0}
    assert answered(echo, CHAT, body)["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize("kind", ["input_audio", "file", "nonsense"])
def test_other_parts_are_refused_by_name(echo, kind):
    content = [{"type": kind, kind: {"data": "x"}}]
    response = post(echo, CHAT, {"messages": [{"role": "user", "content": content}]})
    assert response.status_code == 422
    assert kind in response.json()["error"]["message"]


def test_a_last_turn_of_the_assistant_is_continued(echo):
    body = {"messages": [*user("hi"), {"role": "assistant", "content": "and so"}]}
    text = answered(echo, "/chat_tokenize", body)["templated_text"]
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nand so"
    body |= {"continue_final_message": False, "add_generation_prompt": True}
    text = answered(echo, "/chat_tokenize", body)["templated_text"]
    assert text.endswith("and so<|im_end|>\n<|im_start|>assistant\n")
    body |= {"add_generation_prompt": False}
    assert answered(echo, "/chat_tokenize", body)["templated_text"].endswith("so<|im_end|>\n")


def test_cached_tokens_are_told(demo_client):
    text = "Tell me about Backplane, and mention the word cache. " * 8
    first = ask(demo_client, text, max_tokens=1).usage
    second = ask(demo_client, text, max_tokens=1).usage
    assert first.prompt_tokens_details.cached_tokens < 60
    assert second.prompt_tokens_details.cached_tokens > first.prompt_tokens * 0.8
    assert second.prompt_tokens == first.prompt_tokens


def test_a_token_of_several_characters_has_its_logprobs(demo_client):
    answer = ask(demo_client, "What is Backplane?", max_tokens=5, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert "".join(token.token for token in content) == said(answer)
    assert any(len(token.token) > 1 for token in content)


def test_the_demo_models_stop_text_is_taken_out(demo_client):
    text = said(ask(demo_client, "What is Backplane?", max_tokens=40))
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    answer = ask(demo_client, "What is Backplane?", max_tokens=40, stop=stop)
    assert said(answer) == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(("asked", "status"), [(20, 200), (21, 422)])
def test_as_many_alternatives_as_openai_gives(demo, asked, status):
    body = {"messages": user("hi"), "max_tokens": 1, "logprobs": True, "top_logprobs": asked}
    assert post(demo, CHAT, body).status_code == status


def test_the_demo_model_answers_the_same_whole_and_streamed(demo_client):
    whole = ask(demo_client, "What is Backplane?", max_tokens=40)
    chunks = list(
        ask(
            demo_client,
            "What is Backplane?",
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(one.delta.content or "" for chunk in chunks for one in chunk.choices)
    assert text == said(whole)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
