"""`/v1/chat/completions`, as OpenAI's clients read it."""

import json
import re

import msgspec
import pytest
from backplane_server.dialects.chat_messages import template_messages
from backplane_server.dialects.chat_types import Message

HI = [{"role": "user", "content": "Hi there"}]
PATH = "/v1/chat/completions"


def chat(stack, messages=HI, **fields):
    response = stack.post(PATH, {"messages": messages, "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


def counts_of(answer):
    """The counts that do not depend on what the worker was asked before."""
    counts = dict(answer["usage"])
    assert counts.pop("prompt_tokens_details")["cached_tokens"] <= counts["prompt_tokens"]
    return counts


def stream(stack, messages=HI, **fields):
    body = {"messages": messages, "temperature": 0, "stream": True, **fields}
    return stack.events(PATH, body)


def content_of(events, index=0):
    return "".join(
        choice["delta"].get("content") or ""
        for event in events[:-1]
        for choice in event["choices"]
        if choice["index"] == index
    )


def test_answer_shape(stack):
    answer = chat(stack)
    assert list(answer) == [
        "object",
        "id",
        "created",
        "model",
        "system_fingerprint",
        "choices",
        "usage",
    ]
    assert answer["object"] == "chat.completion"
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", answer["id"])
    assert re.fullmatch(r"[\d.]+-native", answer["system_fingerprint"])
    assert answer["model"] == "echo:test"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi there"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert counts_of(answer) == {"prompt_tokens": 27, "completion_tokens": 9, "total_tokens": 36}
    assert set(answer["usage"]["prompt_tokens_details"]) == {"cached_tokens"}


def test_stream_shape(stack):
    response, events = stream(stack, max_tokens=3)
    assert response.headers["content-type"] == "text/event-stream"
    assert events[-1] == "[DONE]"
    chunks = events[:-1]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["id"].startswith("chatcmpl-")
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert next(iter(chunks[0])) == "object"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "H"},
        {"content": "i"},
        {"content": " "},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, None, None, "length"]
    assert all(chunk["usage"] is None for chunk in chunks)


def test_include_usage_adds_one_chunk_without_choices(stack):
    _, events = stream(stack, max_tokens=3, stream_options={"include_usage": True})
    usage = {"prompt_tokens": 27, "completion_tokens": 3, "total_tokens": 30}
    assert (events[-2]["choices"], counts_of(events[-2])) == ([], usage)
    _, events = stream(stack, max_tokens=3, stream_options=None)
    assert events[-2]["choices"]


@pytest.mark.parametrize("stop", ["th", ["th"], ["ere", "the"]])
def test_stop_strings_go_and_end_the_text(stack, stop):
    answer = chat(stack, stop=stop)
    assert answer["choices"][0]["message"]["content"] == "Hi "
    assert answer["choices"][0]["finish_reason"] == "stop"
    _, events = stream(stack, stop=stop)
    assert content_of(events) == "Hi "


def test_what_only_began_like_a_stop_string_is_shown(stack):
    _, events = stream(stack, stop=["thermal"])
    assert content_of(events) == "Hi there"


def test_logprobs(stack):
    answer = chat(stack, logprobs=True, top_logprobs=2, max_tokens=3)
    content = answer["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["H", "i", " "]
    first = content[0]
    assert first["bytes"] == [72]
    assert first["logprob"] == first["top_logprobs"][0]["logprob"] == pytest.approx(-0.9278, 1e-3)
    assert [other["token"] for other in first["top_logprobs"]] == ["H", "U"]
    none = chat(stack, logprobs=True, max_tokens=1)["choices"][0]["logprobs"]["content"]
    assert none[0]["top_logprobs"] == []


def test_logprobs_of_a_stream_are_those_of_the_whole(stack):
    fields = {"logprobs": True, "top_logprobs": 1}
    messages = [{"role": "user", "content": "é!"}]
    whole = chat(stack, messages, **fields)["choices"][0]
    _, events = stream(stack, messages, **fields)
    entries = [
        entry
        for event in events[:-1]
        for choice in event["choices"]
        for entry in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert entries == whole["logprobs"]["content"]
    text = b"".join(bytes(entry["bytes"]) for entry in entries).decode()
    assert text == whole["message"]["content"] == content_of(events) == "é!"


def test_n_gives_choices_that_differ_where_they_are_drawn(stack):
    answer = chat(stack, n=3, temperature=1.5, seed=7)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert chat(stack, n=3, temperature=1.5, seed=7)["choices"] == answer["choices"]
    _, events = stream(stack, n=3, temperature=1.5, seed=7)
    assert [content_of(events, index) for index in range(3)] == texts


def test_temperature_zero_and_top_p_zero_are_greedy_and_top_p_one_is_taken(stack):
    assert chat(stack, temperature=0, top_p=1.0)["choices"][0]["message"]["content"] == "Hi there"
    for _ in range(5):
        assert text_of(chat(stack, temperature=2, top_p=0)) == "Hi there"
    drawn = {chat(stack, temperature=2)["choices"][0]["message"]["content"] for _ in range(5)}
    assert len(drawn) > 1


def test_the_newer_name_of_the_limit_goes_first(stack):
    answer = chat(stack, max_tokens=9, max_completion_tokens=2)
    assert answer["usage"]["completion_tokens"] == 2


def test_extension_parameters_reach_the_backend(stack):
    assert (
        len(chat(stack, ignore_eos=True, max_tokens=20)["choices"][0]["message"]["content"]) == 20
    )
    stopped = chat(stack, stop_token_ids=[ord("t")])["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("Hi ", "stop")
    assert chat(stack, min_tokens=12, max_tokens=14)["usage"]["completion_tokens"] == 14
    fields = {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "temperature": 1, "seed": 3}
    assert chat(stack, **fields)["usage"]["completion_tokens"] > 0
    assert chat(stack, top_k=-1)["choices"][0]["message"]["content"] == "Hi there"


def test_logit_bias_by_token_id(stack):
    answer = chat(stack, logit_bias={str(ord("Z")): 100}, max_tokens=3)
    assert answer["choices"][0]["message"]["content"] == "ZZZ"


def test_content_parts_are_joined_and_null_is_empty(stack):
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    answer = chat(stack, [{"role": "user", "content": parts}])
    assert answer["choices"][0]["message"]["content"] == "Hi there"
    history = [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "Hi"},
    ]
    assert chat(stack, history)["choices"][0]["message"]["content"] == "Hi"


def test_a_last_turn_of_the_assistant_is_continued(stack):
    messages = [*HI, {"role": "assistant", "content": "abc"}]
    # The prompt ends with the turn's text instead of a new turn, so it is shorter by its frame.
    assert chat(stack, messages)["usage"]["prompt_tokens"] == 27 + 3


@pytest.mark.parametrize("model", [None, "tgi", "dummy", "", "echo:test"])
def test_names_of_the_model_that_is_there(stack, model):
    assert chat(stack, model=model)["model"] == "echo:test"


def test_headers(stack):
    response = stack.post(PATH, {"messages": HI, "temperature": 0})
    assert response.headers["x-generated-tokens"] == "9"
    assert response.headers["x-prompt-tokens"] == "27"
    response, _ = stream(stack)
    assert response.headers["x-compute-characters"] == "58"
    assert "x-generated-tokens" not in response.headers


def calling(arguments):
    call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
    return [*HI, {"role": "assistant", "tool_calls": [call]}, *HI]


@pytest.mark.parametrize(
    "arguments",
    ["[" * 1100, "[" * 1100 + "]" * 1100, "[" * 980 + "]" * 980, f'{{"a": {10**40}}}', "{", "NaN"],
)
def test_arguments_that_are_no_object_stay_a_text(stack, arguments):
    assert text_of(chat(stack, calling(arguments))) == "Hi there"


def test_a_call_with_nulls_is_a_call_with_nothing_there(stack):
    messages = calling(None)
    messages[1]["tool_calls"][0]["id"] = None
    assert text_of(chat(stack, messages)) == "Hi there"
    [call] = template_messages(msgspec.convert(messages, list[Message]))[1]["tool_calls"]
    assert (call["id"], call["function"]["arguments"]) == ("", "")


@pytest.mark.parametrize("inner", ["1" + "0" * 40, "[" * 990 + "]" * 990])
def test_arguments_that_cannot_be_handed_on_are_named(stack, inner):
    body = json.dumps({"messages": calling({"a": "HERE"})}).replace('"HERE"', inner)
    response = stack.post_raw(PATH, body.encode())
    if inner.startswith("["):  # the JSON reader has a depth of its own
        assert response.status_code in {400, 422}
    else:
        assert response.status_code == 422
        assert response.json()["error"]["param"] == ("messages[1].tool_calls[0].function.arguments")
    assert text_of(chat(stack)) == "Hi there"
