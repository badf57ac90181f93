"""What `best_of`, `decoder_input_details`, `watermark` and `adapter_id` do to native answers."""

import pytest
from backplane_core.sampling import sequence_seed

BEST = {"best_of": 2, "do_sample": True, "max_new_tokens": 6, "temperature": 1.5}


def generate(stack, inputs="hello world", *, path="/generate", **parameters):
    response = stack.post(path, {"inputs": inputs, "parameters": parameters})
    assert response.status_code == 200, response.text
    answer = response.json()
    return answer[0] if path == "/" else answer


def mean(tokens):
    return sum(token["logprob"] for token in tokens) / len(tokens)


def test_best_of_answers_with_the_likeliest_and_tells_of_the_others(stack):
    seen = set()
    for _ in range(8):
        details = generate(stack, details=True, **BEST)["details"]
        assert list(details) == [
            "finish_reason",
            "generated_tokens",
            "seed",
            "prefill",
            "tokens",
            "best_of_sequences",
        ]
        [other] = details["best_of_sequences"]
        assert list(other) == [
            "generated_text",
            "finish_reason",
            "generated_tokens",
            "seed",
            "prefill",
            "tokens",
        ]
        assert other["generated_tokens"] == len(other["tokens"])
        assert mean(details["tokens"]) >= mean(other["tokens"])
        assert details["seed"] != other["seed"]
        seen.add(details["tokens"] == other["tokens"])
    assert False in seen, "drawn apart"


def test_each_of_several_can_be_had_again_by_its_seed(stack):
    answer = generate(stack, details=True, **BEST)
    alone = {"do_sample": True, "max_new_tokens": 6, "temperature": 1.5}
    details = answer["details"]
    [other] = details["best_of_sequences"]
    seeds = {details["seed"], other["seed"]}
    assert any(sequence_seed(seed, 1) in seeds for seed in seeds)
    again = generate(stack, seed=details["seed"], details=True, **alone)
    assert again["generated_text"] == answer["generated_text"]
    # The second's seed is already its own: the other parts of a request count from it.
    assert generate(stack, seed=other["seed"], **alone)["generated_text"] == other["generated_text"]


def test_the_winner_alone_is_told_without_details_and_counted(stack):
    response = stack.post("/generate", {"inputs": "hello", "parameters": BEST})
    assert list(response.json()) == ["generated_text"]
    assert int(response.headers["x-generated-tokens"]) <= 6
    assert response.headers["x-prompt-tokens"] == "6"


def test_best_of_with_the_full_text_and_alternatives(stack):
    answer = generate(stack, "ab", path="/", details=True, top_n_tokens=2, **BEST)
    details = answer["details"]
    [other] = details["best_of_sequences"]
    assert answer["generated_text"].startswith("ab")
    assert other["generated_text"].startswith("ab")
    for each in (details, other):
        assert list(each)[-1] == "top_tokens"
        assert len(each["top_tokens"]) == len(each["tokens"])
    assert list(details)[-2] == "best_of_sequences"


@pytest.mark.parametrize("count", [None, 0, 1])
def test_one_has_no_others(stack, count):
    details = generate(stack, best_of=count, do_sample=True, details=True)["details"]
    assert "best_of_sequences" not in details


def test_best_of_prefills_once(stack):
    """A worker says how many prompt tokens it computed: once for both."""
    before = stack.metrics()["backplane_prefilled_tokens"]
    generate(stack, "prefilled once " * 20, **BEST)
    assert stack.metrics()["backplane_prefilled_tokens"] - before == 301


def test_the_permits_of_best_of_are_those_of_its_sequences(stack_module):
    with stack_module.Stack(max_best_of=4, max_concurrent_requests=3) as stack:
        body = {"inputs": "x", "parameters": {**BEST, "best_of": 4}}
        response = stack.post("/generate", body)
        assert response.status_code == 422
        assert "4 sequences are more than the 3" in response.json()["error"]


def test_the_prompts_tokens_come_with_logprobs(stack):
    for path in ("/generate", "/"):
        answer = generate(stack, "hé", path=path, decoder_input_details=True, max_new_tokens=1)
        prefill = answer["details"]["prefill"]
        assert [token["id"] for token in prefill] == [256, 104, 195, 169]
        assert [token["text"] for token in prefill][:2] == ["<|bos|>", "h"]
        assert prefill[0]["logprob"] is None
        assert all(token["logprob"] < 0 for token in prefill[1:])
        assert answer["details"]["tokens"], "details come along"


def test_a_truncated_prompts_tokens_are_those_that_are_left(stack):
    answer = generate(stack, "abcdef", decoder_input_details=True, truncate=2, max_new_tokens=1)
    assert [token["text"] for token in answer["details"]["prefill"]] == ["e", "f"]


@pytest.fixture(scope="module")
def strict(stack_module):
    with stack_module.Stack(tgi_strict=True) as running:
        yield running


def test_strictly_as_tgi_the_prompts_tokens_are_left_out(strict):
    details = generate(strict, "a", decoder_input_details=True, max_new_tokens=1)["details"]
    assert details["prefill"] == []
    assert len(details["tokens"]) == 1


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"max_new_tokens": 3}, "length"),  # the third is the end token
        ({"max_new_tokens": 4}, "eos_token"),
        ({"max_new_tokens": 2, "stop": ["hi"]}, "length"),
        ({"max_new_tokens": 3, "stop": ["hi"]}, "stop_sequence"),
    ],
)
def test_strictly_as_tgi_length_goes_before_any_other_end(strict, parameters, reason):
    answer = generate(strict, "hi", details=True, **parameters)
    assert (answer["generated_text"], answer["details"]["finish_reason"]) == ("hi", reason)
    body = {"inputs": "hi", "parameters": {**parameters, "details": True}}
    _, events = strict.events("/generate_stream", body)
    assert events[-1]["details"]["finish_reason"] == reason


def test_an_end_token_in_the_last_place_is_an_end_token(stack):
    details = generate(stack, "hi", max_new_tokens=3, details=True)["details"]
    assert details["finish_reason"] == "eos_token"


def test_a_stream_shows_the_full_text_in_its_last_event_alone(stack):
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 2, "return_full_text": True}}
    _, events = stack.events("/generate_stream", body)
    assert [event["generated_text"] for event in events] == [None, "hihi"]
    assert "".join(event["token"]["text"] for event in events) == "hi"


def test_an_unknown_adapter_is_refused_and_the_known_ones_named(stack):
    for path in ("/generate", "/generate_stream", "/"):
        body = {"inputs": "x", "parameters": {"adapter_id": "mine"}}
        response = stack.post(path, body)
        assert (response.status_code, response.json()["error_type"]) == (422, "adapter_error")
        assert "'mine'" in response.json()["error"]
        assert "known are: none" in response.json()["error"]


def test_what_runs_it_is_what_the_operator_says(stack_module):
    with stack_module.Stack(compute_type="2-nvidia-a10g", docker_label="sha-abc") as stack:
        for path in ("/generate", "/generate_stream", "/"):
            response = stack.post(path, {"inputs": "x", "parameters": {}})
            assert response.headers["x-compute-type"] == "2-nvidia-a10g"
        body = {"prompt": "x", "temperature": 0}
        assert stack.post("/v1/completions", body).headers["x-compute-type"] == "2-nvidia-a10g"
        assert stack.get("/info").json()["docker_label"] == "sha-abc"
