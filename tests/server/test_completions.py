"""`/v1/completions`."""

import json
from types import SimpleNamespace

import msgspec
import pytest
from backplane_core.control import ServerLaunch
from backplane_core.errors import UnsupportedError
from backplane_server.dialects.completions import plan
from backplane_server.dialects.completions_types import CompletionRequest
from backplane_server.services.request_checks import check_grammar, check_request

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
    assert answer["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 3,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


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
    assert list(logprobs) == ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
    assert (logprobs["tokens"], logprobs["text_offset"]) == (["h", "e"], [0, 1])
    assert list(logprobs["top_logprobs"][0]) == ["h", "u"]
    assert logprobs["token_logprobs"][0] == logprobs["top_logprobs"][0]["h"]
    chosen = complete(stack, max_tokens=1, logprobs=0)["choices"][0]["logprobs"]
    assert chosen["top_logprobs"] is None
    assert complete(stack, max_tokens=1, logprobs=False)["choices"][0]["logprobs"] is None


def test_the_end_token_has_a_logprob_and_no_text(stack):
    choice = complete(stack, "ab", logprobs=1)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("ab", "stop")
    logprobs = choice["logprobs"]
    assert (logprobs["tokens"], logprobs["text_offset"]) == (["a", "b", "<|eos|>"], [0, 1, 2])


def test_a_token_that_was_not_likely_stands_among_the_likely(stack):
    bias = {str(ord("z")): 40}
    logprobs = complete(stack, max_tokens=1, logprobs=1, logit_bias=bias)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["z"]
    assert list(logprobs["top_logprobs"][0]) == ["h", "z"]
    assert logprobs["top_logprobs"][0]["z"] == logprobs["token_logprobs"][0]


def test_bytes_that_are_no_character_have_a_name(stack):
    logprobs = complete(stack, "é", logprobs=1)["choices"][0]["logprobs"]
    assert logprobs["tokens"][:2] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert logprobs["text_offset"] == [0, 0, 1]


def streamed(stack, **fields):
    """The choices' texts and logprobs of a stream, put together, and what was read."""
    _, events = stack.events(PATH, {"temperature": 0, "stream": True, **fields})
    assert events[-1] == "[DONE]"
    whole = {}
    for event in events[:-1]:
        for choice in event["choices"]:
            mine = whole.setdefault(choice["index"], {"text": "", "logprobs": None})
            mine["text"] += choice["text"]
            mine["finish_reason"] = choice["finish_reason"]
            if choice["logprobs"] is not None:
                so_far = mine["logprobs"] or {name: [] for name in choice["logprobs"]}
                mine["logprobs"] = {
                    name: None if value is None else so_far[name] + value
                    for name, value in choice["logprobs"].items()
                }
    return [{"index": index, **whole[index]} for index in sorted(whole)]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "abc"},
        {"prompt": "abc", "logprobs": 1},
        {"prompt": ["ab", "é"], "logprobs": 0, "n": 2},
        {"prompt": ["ab", "cde"], "echo": True},
        {"prompt": "aé😀", "echo": True, "logprobs": 2, "max_tokens": 3},
        {"prompt": [104, 0xC3, 0xA9], "echo": True, "logprobs": 1, "n": 2},
        {"prompt": "hello", "echo": True, "logprobs": 1, "max_tokens": 0},
        {"prompt": "hello", "truncate_prompt_tokens": 3, "echo": True, "logprobs": 1},
        {"prompt": "a<|im_end|>b", "echo": True, "logprobs": 0, "skip_special_tokens": False},
    ],
    ids=json.dumps,
)
def test_a_stream_put_together_is_the_whole(stack, fields):
    whole = complete(stack, **fields)["choices"]
    parts = streamed(stack, **fields)
    assert parts == whole
    for choice in whole:
        if logprobs := choice["logprobs"]:
            offsets = logprobs["text_offset"]
            assert offsets == sorted(offsets)
            assert offsets[-1] <= len(choice["text"])
            assert len(offsets) == len(logprobs["tokens"]) == len(logprobs["token_logprobs"])


def test_echo_puts_the_prompt_before_the_text(stack):
    choice = complete(stack, "hello", echo=True, logprobs=1, max_tokens=2)["choices"][0]
    assert choice["text"] == "hellohe"
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["<|bos|>", *"hello", *"he"]
    assert logprobs["text_offset"] == [0, 0, 1, 2, 3, 4, 5, 6]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(value < 0 for value in logprobs["token_logprobs"][1:])


def test_echo_of_token_ids_is_their_text(stack):
    assert complete(stack, [104, 105], echo=True, max_tokens=1)["choices"][0]["text"] == "hih"
    answer = complete(stack, [256, 104, 105, 259], echo=True, max_tokens=1)
    assert answer["choices"][0]["text"].startswith("hi")
    shown = complete(stack, [256, 104, 105], echo=True, max_tokens=1, skip_special_tokens=False)
    assert shown["choices"][0]["text"] == "<|bos|>hih"


def test_a_prompt_is_scored_alone_with_max_tokens_0(stack):
    response = stack.post(PATH, {"prompt": "hey", "echo": True, "logprobs": 0, "max_tokens": 0})
    [choice] = response.json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("hey", "length")
    assert choice["logprobs"]["tokens"] == ["<|bos|>", "h", "e", "y"]
    usage = response.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 0)
    assert response.headers["x-generated-tokens"] == "0"


def test_the_best_of_several_are_those_likeliest_by_token(stack):
    fields = {"temperature": 1.5, "seed": 11, "max_tokens": 6, "logprobs": 0}
    both = complete(stack, n=2, **fields)["choices"]
    means = [
        sum(choice["logprobs"]["token_logprobs"]) / len(choice["logprobs"]["tokens"])
        for choice in both
    ]
    assert means[0] != means[1]
    best = both[means.index(max(means))]
    answer = complete(stack, best_of=2, **fields)
    assert answer["choices"] == [{**best, "index": 0}]
    assert answer["usage"]["completion_tokens"] == 12  # what was made is what was made
    quiet = complete(stack, best_of=2, **{**fields, "logprobs": None})
    assert quiet["choices"] == [{**best, "index": 0, "logprobs": None}]


def test_cached_tokens_are_told(stack):
    prompt = "a prompt of three whole blocks and a bit, told twice"
    complete(stack, prompt, max_tokens=1)
    usage = complete(stack, prompt, max_tokens=1)["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 48}


def test_stops_may_stay_and_specials_be_seen(stack):
    kept = complete(stack, stop="l", include_stop_str_in_output=True)["choices"][0]
    assert (kept["text"], kept["finish_reason"]) == ("hel", "stop")
    bias = {"logit_bias": {"258": 100}, "max_tokens": 2}
    assert complete(stack, **bias)["choices"][0]["text"] == ""
    seen = complete(stack, skip_special_tokens=False, **bias)["choices"][0]["text"]
    assert seen == "<|im_start|><|im_start|>"


def test_what_the_tokenizer_adds_and_what_is_cut_off(stack):
    assert complete(stack, add_special_tokens=False)["usage"]["prompt_tokens"] == 5
    assert complete(stack, truncate_prompt_tokens=3)["choices"][0]["text"] == "llo"
    assert complete(stack, truncate_prompt_tokens=-1)["usage"]["prompt_tokens"] == 6


def test_counts_in_every_chunk_where_asked_for(stack):
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"prompt": "ab", "temperature": 0, "stream": True, "stream_options": options}
    _, events = stack.events(PATH, body)
    counts = [event["usage"]["completion_tokens"] for event in events[:-1]]
    assert counts == sorted(counts)
    assert counts[-1] == 3
    assert len(counts) == 4


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


SETTINGS = ServerLaunch(server_id="s", control_path="", model_id="m")


@pytest.mark.parametrize(
    ("fields", "capabilities", "name"),
    [
        ({"echo": True, "logprobs": 1}, {"max_top_logprobs": 5}, "echo"),
        ({"best_of": 2}, {"multiple_sequences": True}, "best_of"),
        ({"best_of": 2}, {"max_top_logprobs": 5}, "best_of"),
        ({"n": 2}, {"max_top_logprobs": 5}, "n"),
        ({"logprobs": 0}, {}, "logprobs"),
        ({"logprobs": 3}, {"max_top_logprobs": 1}, "logprobs"),
        ({"guided_regex": "a"}, {}, "guided_regex"),
        ({"response_format": {"type": "json_object"}}, {}, "response_format"),
        ({"typical_p": 0.5}, {}, "typical_p"),
        ({"min_tokens": 1}, {}, "min_tokens"),
    ],
)
def test_what_a_backend_lacks_is_named_as_the_client_named_it(info, fields, capabilities, name):
    known = info(**capabilities)
    model = SimpleNamespace(info=known, resolve=lambda _: None)
    body = msgspec.convert({"prompt": "x", "temperature": 0, **fields}, CompletionRequest)
    [asked] = plan(body, model, SETTINGS).requests
    with pytest.raises(UnsupportedError) as caught:  # noqa: PT012 -- the service asks one, then the other
        check_request(asked, SETTINGS, known)
        check_grammar(asked, SETTINGS, known)
    assert caught.value.parameter == name
    assert f"`{name}`" in caught.value.message
