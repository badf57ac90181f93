"""`/v1/completions`."""

import pytest

PATH = "/v1/completions"


def complete(stack, prompt="hello", **fields):
    response = stack.post(PATH, {"prompt": prompt, "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_answer_shape(stack):
    answer = complete(stack, max_tokens=3)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {"index": 0, "text": "hel", "logprobs": None, "finish_reason": "length"}
    ]
    assert answer["usage"] == {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9}


def test_several_prompts_answer_in_index_order(stack):
    answer = complete(stack, ["long " * 20, "b", "c"], n=2)
    texts = [(choice["index"], choice["text"]) for choice in answer["choices"]]
    assert texts == [(0, "long " * 20), (1, "long " * 20), (2, "b"), (3, "b"), (4, "c"), (5, "c")]
    assert answer["usage"]["prompt_tokens"] == 101 + 2 + 2


@pytest.mark.parametrize("prompt", [[104, 105], [[104, 105]]])
def test_token_ids_as_a_prompt(stack, prompt):
    answer = complete(stack, prompt)
    assert answer["choices"][0]["text"] == "hi"
    assert answer["usage"]["prompt_tokens"] == 2


def test_stream_interleaves_by_index_and_ends_each(stack):
    body = {
        "prompt": ["ab", "cde"],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    _, events = stack.events(PATH, body)
    assert events[-1] == "[DONE]"
    assert (events[-2]["choices"], events[-2]["usage"]["completion_tokens"]) == ([], 7)
    choices = [event["choices"][0] for event in events[:-2]]
    for index, text in enumerate(["ab", "cde"]):
        mine = [choice for choice in choices if choice["index"] == index]
        assert "".join(choice["text"] for choice in mine) == text
        assert [choice["finish_reason"] for choice in mine] == [None] * len(text) + ["stop"]


def test_legacy_logprobs(stack):
    logprobs = complete(stack, max_tokens=2, logprobs=2)["choices"][0]["logprobs"]
    assert (logprobs["tokens"], logprobs["text_offset"]) == (["h", "e"], [0, 1])
    assert list(logprobs["top_logprobs"][0]) == ["h", "u"]
    assert logprobs["token_logprobs"][0] == logprobs["top_logprobs"][0]["h"]
    chosen = complete(stack, max_tokens=1, logprobs=0)["choices"][0]["logprobs"]
    assert chosen["top_logprobs"] is None
    assert complete(stack, max_tokens=1, logprobs=False)["choices"][0]["logprobs"] is None


def test_logprobs_of_a_stream_have_running_offsets(stack):
    body = {"prompt": "abc", "temperature": 0, "stream": True, "logprobs": 1}
    _, events = stack.events(PATH, body)
    logprobs = [event["choices"][0]["logprobs"] for event in events[:-1]]
    assert [entry["text_offset"] for entry in logprobs if entry] == [[0], [1], [2]]


def test_stop_string_is_removed(stack):
    choice = complete(stack, stop="l")["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("he", "stop")


def test_headers_are_sums(stack):
    response = stack.post(PATH, {"prompt": ["ab", "c"], "temperature": 0})
    assert response.headers["x-compute-characters"] == "3"
    assert response.headers["x-prompt-tokens"] == "5"
    assert response.headers["x-generated-tokens"] == "5"


def test_a_stream_of_several_prompts_ends_once_and_last(stack):
    prompts = ["Hello", "What is", "this and that", "x"]
    for seed in range(10):
        _, events = stack.events(
            "/v1/completions",
            {
                "prompt": prompts,
                "max_tokens": 4,
                "stream": True,
                "seed": seed,
                "stream_options": {"include_usage": True},
            },
        )
        assert events.count("[DONE]") == 1
        assert events[-1] == "[DONE]"
        assert [bool(event["choices"]) for event in events[:-1]] == [True] * (len(events) - 2) + [
            False
        ]
        ended = [
            choice["index"]
            for event in events[:-1]
            for choice in event["choices"]
            if choice["finish_reason"]
        ]
        assert sorted(ended) == [0, 1, 2, 3]
