"""TGI's native routes, byte by byte where clients depend on it."""

import json
import platform
from types import SimpleNamespace

import pytest
from backplane_core.vocabulary import Vocabulary
from backplane_server.dialects.native import NativePlan
from backplane_server.dialects.native_stream import NativeStream
from backplane_server.errors import IncompleteGenerationError
from backplane_server.text.choice_decoder import ChoiceEvent, Finish, TokenOut
from backplane_server.text.detokenizer import TokenTable

LOGPROB = pytest.approx(-0.9278, abs=1e-3)


def generate(stack, inputs="hello", **parameters):
    response = stack.post("/generate", {"inputs": inputs, "parameters": parameters})
    assert response.status_code == 200, response.text
    return response.json()


def test_generate_answers_with_the_text_alone(stack):
    response = stack.post("/generate", {"inputs": "hello", "parameters": {"max_new_tokens": 3}})
    assert response.content == b'{"generated_text":"hel"}'
    assert response.headers["content-type"] == "application/json"


def test_details_have_the_contracts_fields_in_order(stack):
    details = generate(stack, max_new_tokens=9, details=True)["details"]
    assert list(details) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    assert details["finish_reason"] == "eos_token"
    assert (details["generated_tokens"], details["seed"], details["prefill"]) == (6, None, [])
    assert details["tokens"][0] == {"id": 104, "text": "h", "logprob": LOGPROB, "special": False}
    assert details["tokens"][-1] == {
        "id": 257,
        "text": "<|eos|>",
        "logprob": LOGPROB,
        "special": True,
    }


def test_top_tokens_come_with_details(stack):
    details = generate(stack, max_new_tokens=2, details=True, top_n_tokens=2)["details"]
    assert [[token["text"] for token in step] for step in details["top_tokens"]] == [
        ["h", "u"],
        ["e", "r"],
    ]
    assert "details" not in generate(stack, max_new_tokens=2, top_n_tokens=2)


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 40, 1500])
def test_max_new_tokens_is_exact(stack, limit):
    details = generate(stack, "x" * 2000, max_new_tokens=limit, details=True)["details"]
    assert details["generated_tokens"] == len(details["tokens"]) == limit
    assert details["finish_reason"] == "length"


def test_max_new_tokens_left_out_is_the_rest_of_the_context(stack):
    info = stack.get("/info").json()
    text = "x" * 3000
    details = generate(stack, text, details=True)["details"]
    assert details["generated_tokens"] == info["max_total_tokens"] - 3001


def test_stream_bytes(stack):
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 9, "details": True}}
    response = stack.post("/generate_stream", body)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-compute-characters"] == "2"
    assert "content-length" not in response.headers
    logprob = json.loads(response.content[6:].split(b"\n")[0])["token"]["logprob"]
    middle = f'"logprob":{logprob},"special":'
    expected = (
        'data: {"index":1,"token":{"id":104,"text":"h",'
        f'{middle}false}},"generated_text":null,"details":null}}\n\n'
        'data: {"index":2,"token":{"id":105,"text":"i",'
        f'{middle}false}},"generated_text":null,"details":null}}\n\n'
        'data: {"index":3,"token":{"id":257,"text":"<|eos|>",'
        f'{middle}true}},"generated_text":"hi","details":{{"finish_reason":"eos_token",'
        '"generated_tokens":3,"seed":null,"input_length":3}}\n\n'
    )
    assert response.content.decode() == expected


def test_stream_without_details_ends_with_null_details(stack):
    _, events = stack.events(
        "/generate_stream", {"inputs": "hi", "parameters": {"max_new_tokens": 1}}
    )
    assert (events[-1]["generated_text"], events[-1]["details"]) == ("h", None)


def test_stream_has_top_tokens_where_asked_for(stack):
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 1, "top_n_tokens": 3}}
    _, events = stack.events("/generate_stream", body)
    assert list(events[0]) == ["index", "token", "top_tokens", "generated_text", "details"]
    assert len(events[0]["top_tokens"]) == 3


def test_root_answers_with_an_array_of_one_and_the_full_text(stack):
    response = stack.post("/", {"inputs": "hello", "parameters": {"max_new_tokens": 2}})
    assert response.content == b'[{"generated_text":"hellohe"}]'
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 2, "return_full_text": False}}
    assert stack.post("/", body).json() == [{"generated_text": "he"}]


def test_root_streams_where_told_to(stack):
    body = {"inputs": "hello", "stream": True, "parameters": {"max_new_tokens": 2}}
    response, events = stack.events("/", body)
    assert response.headers["content-type"] == "text/event-stream"
    assert [event["token"]["text"] for event in events] == ["h", "e"]
    assert events[-1]["generated_text"] == "hellohe"


def test_full_text_on_generate_only_where_asked_for(stack):
    assert generate(stack, "ab", max_new_tokens=1)["generated_text"] == "a"
    full = generate(stack, "ab", max_new_tokens=1, return_full_text=True)
    assert full["generated_text"] == "aba"


def test_the_default_trap_of_do_sample(stack):
    texts = {stack.post("/generate", {"inputs": "sample me"}).text for _ in range(6)}
    assert len(texts) > 1, "without parameters it samples"
    texts = {stack.post("/generate", {"inputs": "x", "parameters": {}}).text for _ in range(3)}
    assert texts == {'{"generated_text":"x"}'}, "with parameters it does not"


@pytest.mark.parametrize(
    "narrowing", [{"temperature": 2.0}, {"top_k": 5}, {"top_p": 0.9}, {"typical_p": 0.9}]
)
def test_a_narrowing_parameter_samples_and_reports_its_seed(stack, narrowing):
    details = generate(stack, "abc", max_new_tokens=4, details=True, **narrowing)["details"]
    assert isinstance(details["seed"], int)


def test_a_seed_repeats_and_is_reported(stack):
    runs = [
        generate(stack, "abcdefgh", max_new_tokens=8, do_sample=True, seed=2**64 - 1, details=True)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0]["details"]["seed"] == 2**64 - 1
    again = generate(stack, "abcdefgh", max_new_tokens=8, do_sample=True, details=True)
    assert again["generated_text"] != runs[0]["generated_text"]


@pytest.mark.parametrize("stop", [["lo w"], "lo w", ["zzz", "o w"]])
def test_stop_strings_stay_in_the_text_and_end_it(stack, stop):
    answer = generate(stack, "hello world", max_new_tokens=30, stop=stop, details=True)
    assert answer["generated_text"] == "hello w"
    assert answer["details"]["finish_reason"] == "stop_sequence"
    assert answer["details"]["generated_tokens"] == len(answer["details"]["tokens"]) == 7


def test_stop_strings_in_a_stream(stack):
    body = {
        "inputs": "hello world",
        "parameters": {"max_new_tokens": 30, "stop": ["o w"], "details": True},
    }
    _, events = stack.events("/generate_stream", body)
    assert "".join(event["token"]["text"] for event in events) == "hello w"
    assert events[-1]["details"]["finish_reason"] == "stop_sequence"


def test_truncate_keeps_the_last_tokens(stack):
    answer = generate(stack, "abcdef", truncate=2, max_new_tokens=4)
    assert answer["generated_text"] == "ef"


def test_multibyte_text_is_empty_until_it_is_whole(stack):
    _, events = stack.events(
        "/generate_stream", {"inputs": "é😀", "parameters": {"max_new_tokens": 6}}
    )
    assert [event["token"]["text"] for event in events] == ["", "é", "", "", "", "😀"]
    assert events[-1]["generated_text"] == "é😀"


def test_headers_tell_cost(stack):
    response = stack.post("/generate", {"inputs": "héllo", "parameters": {"max_new_tokens": 4}})
    headers = response.headers
    assert headers["x-compute-characters"] == "5"
    assert headers["x-prompt-tokens"] == "7"
    assert headers["x-generated-tokens"] == "4"
    assert 0 < float(headers["x-compute-time"]) < 20
    for name in ("total", "validation", "queue", "inference"):
        assert headers[f"x-{name}-time"].isdecimal()
    assert headers["x-time-per-token"].isdecimal()
    assert headers["x-compute-type"] == f"1-{platform.machine().lower()}"


@pytest.mark.parametrize("path", ["/generate", "/"])
@pytest.mark.parametrize(("adds", "count"), [(None, 3), (True, 3), (False, 2)])
def test_the_tokenizers_special_tokens_can_be_left_out(stack, path, adds, count):
    body = {"inputs": "hi", "add_special_tokens": adds, "parameters": {"max_new_tokens": 1}}
    response = stack.post(path, body)
    assert response.headers["x-prompt-tokens"] == str(count)
    assert "x-ignored-parameters" not in response.headers


def test_info(stack):
    info = stack.get("/info").json()
    assert list(info) == [
        "model_id",
        "model_sha",
        "model_pipeline_tag",
        "max_concurrent_requests",
        "max_best_of",
        "max_stop_sequences",
        "max_input_tokens",
        "max_total_tokens",
        "validation_workers",
        "max_client_batch_size",
        "router",
        "version",
        "sha",
        "docker_label",
        "backend",
        "backend_version",
        "device",
        "architecture",
        "dtype",
        "quantization",
        "detail",
    ]
    assert (info["model_id"], info["max_stop_sequences"]) == ("echo:test", 4)
    assert (info["max_best_of"], info["model_pipeline_tag"]) == (2, "text-generation")


def native_stream():
    """A stream without a server, over a generation of "hi"."""
    table = TokenTable(Vocabulary(tokens=[b"h", b"i", b"<eos>"], eos_token_ids=(2,)))
    choice = SimpleNamespace(text="hi", num_tokens=2)
    generation = SimpleNamespace(
        model=SimpleNamespace(table=table), choices=[choice], seed=None, num_prompt_tokens=1
    )
    native = NativePlan(generation=None, details=False, top_tokens=False, prefix="")
    return NativeStream(native, generation)


def test_an_end_without_a_token_comes_with_the_last_real_one():
    stream = native_stream()
    first = TokenOut(0, "h", silent=False, logprob=-1.0)
    second = TokenOut(1, "i", silent=False, logprob=-2.0)
    frames = stream.event(0, ChoiceEvent(0, [first, second]))
    frames += stream.event(0, ChoiceEvent(0, finish=Finish.LENGTH))
    events = [json.loads(line.removeprefix(b"data: ")) for line in frames.split(b"\n\n") if line]
    tokens = [event["token"] for event in events]
    assert "".join(token["text"] for token in tokens) == events[-1]["generated_text"] == "hi"
    assert [(token["id"], token["logprob"]) for token in tokens] == [(0, -1), (1, -2), (1, -2)]
    assert [event["index"] for event in events] == [1, 2, 2]


def test_an_end_before_the_first_token_is_an_error():
    with pytest.raises(IncompleteGenerationError):
        native_stream().event(0, ChoiceEvent(0, finish=Finish.LENGTH))
