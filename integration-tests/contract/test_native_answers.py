"""What each native parameter does, and the bytes in which the native routes answer."""

import json
from itertools import chain

import pytest
from contract.wire import answered, frames, generated, is_compact, post, streamed

DETAILS = ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
SEQUENCE = ["generated_text", "finish_reason", "generated_tokens", "seed", "prefill", "tokens"]


def test_generate_answers_with_one_object(echo):
    response = post(echo, "/generate", {"inputs": "hello", "parameters": {"max_new_tokens": 3}})
    assert response.content == b'{"generated_text":"hel"}'


def test_the_root_answers_with_an_array_of_one_and_the_prompt_before_it(echo):
    response = post(echo, "/", {"inputs": "hello", "parameters": {"max_new_tokens": 3}})
    assert response.content == b'[{"generated_text":"hellohel"}]'
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 3, "return_full_text": False}}
    assert post(echo, "/", body).content == b'[{"generated_text":"hel"}]'


def test_details_have_their_keys_in_order(echo):
    answer = generated(echo, "hey", top_n_tokens=2)
    assert list(answer) == ["generated_text", "details"]
    details = answer["details"]
    assert list(details) == [*DETAILS, "top_tokens"]
    assert [token["text"] for token in details["tokens"]] == ["h", "e", "y", "<|eos|>"]
    for token in chain(details["tokens"], *details["top_tokens"]):
        assert list(token) == ["id", "text", "logprob", "special"]
    assert details["tokens"][-1]["special"] is True
    assert (details["finish_reason"], details["generated_tokens"]) == ("eos_token", 4)
    assert details["seed"] is None
    assert details["prefill"] == []
    assert [len(step) for step in details["top_tokens"]] == [2, 2, 2, 2]


def test_prompt_details_begin_with_a_null_logprob(echo):
    details = generated(echo, "hey", max_new_tokens=1, decoder_input_details=True)["details"]
    assert list(details["prefill"][0]) == ["id", "text", "logprob"]
    assert [token["text"] for token in details["prefill"]][1:] == ["h", "e", "y"]
    assert details["prefill"][0]["logprob"] is None
    assert all(token["logprob"] <= 0 for token in details["prefill"][1:])


def test_prompt_details_alone_bring_details(echo):
    body = {"inputs": "hey", "parameters": {"max_new_tokens": 1, "decoder_input_details": True}}
    assert len(answered(echo, "/generate", body)["details"]["prefill"]) == 4


def test_the_demo_models_prompt_has_logprobs(demo):
    prompt = "What is Backplane?"
    details = generated(demo, prompt, max_new_tokens=1, decoder_input_details=True)["details"]
    tokens = answered(demo, "/tokenize", {"inputs": prompt})
    assert [token["id"] for token in details["prefill"]] == [token["id"] for token in tokens]
    assert details["prefill"][0]["logprob"] is None
    assert all(token["logprob"] < 0 for token in details["prefill"][1:])


def test_best_of_gives_the_likeliest_and_the_others_beside_it(echo):
    answer = generated(echo, "hello world", best_of=2, do_sample=True, max_new_tokens=8)
    details = answer["details"]
    assert list(details) == [*DETAILS, "best_of_sequences"]
    (other,) = details["best_of_sequences"]
    assert list(other) == SEQUENCE

    def mean(tokens):
        return sum(token["logprob"] for token in tokens) / len(tokens)

    assert mean(details["tokens"]) >= mean(other["tokens"])
    assert other["generated_tokens"] == len(other["tokens"])


def test_best_of_prefills_once(demo):
    """Forked after one prefill: the prompt's tokens are computed once, not twice."""
    prompt = "best of two " * 40
    (num_tokens,) = {len(answered(demo, "/tokenize", {"inputs": prompt}))}
    before = demo.metric("backplane_prefilled_tokens")
    generated(demo, prompt, best_of=2, do_sample=True, max_new_tokens=4)
    assert demo.metric("backplane_prefilled_tokens") - before <= num_tokens + 2


@pytest.mark.parametrize("limit", [1, 5, 1024, 1025, 1500])
def test_max_new_tokens_is_exact_on_both_sides_of_1024(echo, limit):
    """TGI allots 1,024 tokens at a time and then gives up to 2,048."""
    details = generated(echo, "x" * 2000, max_new_tokens=limit)["details"]
    assert details["generated_tokens"] == len(details["tokens"]) == limit
    assert details["finish_reason"] == "length"


@pytest.mark.parametrize("stop", [["o w"], "o w", ["zzz", "o w"]], ids=str)
def test_a_stop_string_stays_in_a_native_answer(echo, stop):
    answer = generated(echo, "hello world", stop=stop)
    assert answer["generated_text"] == "hello w"
    assert answer["details"]["finish_reason"] == "stop_sequence"
    assert answer["details"]["generated_tokens"] == 7


def test_a_stop_string_is_found_inside_a_token(demo):
    """The demo model's tokens are longer than a character; TGI looks at their ends only."""
    text = generated(demo, "Backplane is", max_new_tokens=12)["generated_text"]
    tokens = generated(demo, "Backplane is", max_new_tokens=12)["details"]["tokens"]
    inside = next(token["text"] for token in tokens if len(token["text"].strip()) > 3)[:-1]
    answer = generated(demo, "Backplane is", max_new_tokens=12, stop=[inside])
    assert answer["generated_text"] == text[: text.index(inside) + len(inside)]
    assert answer["details"]["finish_reason"] == "stop_sequence"


def test_truncate_keeps_the_end(echo):
    assert generated(echo, "abcdef", truncate=2)["generated_text"] == "ef"


def test_a_seed_is_told_and_repeats(echo):
    first = generated(echo, "abcdefgh", do_sample=True, max_new_tokens=8)
    seed = first["details"]["seed"]
    assert isinstance(seed, int)
    again = generated(echo, "abcdefgh", do_sample=True, max_new_tokens=8, seed=seed)
    assert again == first


def test_parameters_left_out_sample_and_parameters_without_do_sample_do_not(echo):
    inputs = "sample this text"
    texts = {answered(echo, "/generate", {"inputs": inputs})["generated_text"] for _ in range(5)}
    assert len(texts) > 1
    assert answered(echo, "/generate", {"inputs": inputs, "parameters": {}}) == {
        "generated_text": inputs
    }


def test_repetition_and_frequency_penalties_change_the_text(echo):
    plain = generated(echo, "aaaaaaaa", max_new_tokens=8)["generated_text"]
    assert plain == "aaaaaaaa"
    for penalty in ({"repetition_penalty": 3.0}, {"frequency_penalty": 1.5}):
        assert generated(echo, "aaaaaaaa", max_new_tokens=8, **penalty)["generated_text"] != plain


def test_a_watermark_moves_the_draw_and_keeps_its_seed(echo):
    options = {"max_new_tokens": 40, "do_sample": True, "seed": 1, "temperature": 1.5}
    plain = generated(echo, "hello world", **options)["details"]["tokens"]
    marked = generated(echo, "hello world", watermark=True, **options)["details"]["tokens"]
    again = generated(echo, "hello world", watermark=True, **options)["details"]["tokens"]
    assert [token["id"] for token in marked] != [token["id"] for token in plain]
    assert [token["id"] for token in marked] == [token["id"] for token in again]


@pytest.mark.parametrize(
    ("grammar", "parse"),
    [
        ({"type": "regex", "value": "[0-9]{3}-[a-f]{2}"}, None),
        ({"type": "json", "value": {"properties": {"a": {"type": "integer"}}}}, json.loads),
        ({"type": "json_object", "value": {"properties": {"a": {"type": "null"}}}}, json.loads),
        (
            {
                "type": "json_schema",
                "value": {
                    "name": "pair",
                    "schema": {
                        "type": "object",
                        "properties": {"b": {"enum": ["x", "y"]}},
                        "required": ["b"],
                    },
                },
            },
            json.loads,
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_a_grammar_is_obeyed(demo, grammar, parse):
    answer = generated(demo, "Anything at all:", max_new_tokens=120, grammar=grammar)
    text = answer["generated_text"]
    assert answer["details"]["finish_reason"] == "eos_token"
    if parse is None:
        assert len(text) == 6
        assert text[3] == "-"
        assert text[:3].isdigit()
    else:
        assert isinstance(parse(text), dict)


def test_stream_bytes(echo):
    body = {"inputs": "hi", "parameters": {"details": True}}
    data = frames(post(echo, "/generate_stream", body).content)
    assert all(map(is_compact, data))
    assert all(piece.startswith(b'{"index":') for piece in data)
    first, second, last = map(json.loads, data)
    assert list(first) == ["index", "token", "generated_text", "details"]
    assert [event["index"] for event in (first, second, last)] == [1, 2, 3]
    assert (first["generated_text"], first["details"]) == (None, None)
    assert last["generated_text"] == "hi"
    assert list(last["details"]) == ["finish_reason", "generated_tokens", "seed", "input_length"]
    assert last["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 3,
        "seed": None,
        "input_length": 3,
    }


def test_a_stream_has_details_and_top_tokens_only_where_asked_for(echo):
    events = streamed(echo, "/generate_stream", {"inputs": "hi", "parameters": {}})
    assert events[-1]["details"] is None
    body = {"inputs": "hi", "parameters": {"top_n_tokens": 2}}
    for event in streamed(echo, "/generate_stream", body):
        assert list(event) == ["index", "token", "top_tokens", "generated_text", "details"]
        assert len(event["top_tokens"]) == 2


def test_the_root_streams_where_told_to(echo):
    body = {"inputs": "hi", "stream": True, "parameters": {"max_new_tokens": 2}}
    events = streamed(echo, "/", body)
    assert [event["token"]["text"] for event in events] == ["h", "i"]
    assert events[-1]["generated_text"] == "hihi"


def test_half_a_character_is_no_text_yet(echo):
    events = streamed(echo, "/generate_stream", {"inputs": "é", "parameters": {}})
    assert [event["token"]["text"] for event in events] == ["", "é", "<|eos|>"]
