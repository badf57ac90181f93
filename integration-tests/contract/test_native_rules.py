"""Section by section, what TGI's native parameters may be, and the order in which that is told."""

from typing import Any

import pytest
from contract.wire import generated, post

MAX_INPUT = 4095  # echo's limits
MAX_TOTAL = 4096
FIVE = ["a", "b", "c", "d", "e"]

# What is wrong, and what the sentence must name: the parameter, limits and values.
BROKEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "best_of over the limit": ({"best_of": 3, "do_sample": True}, ("`best_of`", "2", "3")),
    "best_of without sampling": ({"best_of": 2}, ("`best_of`", "sampl")),
    "best_of with a seed": (
        {"best_of": 2, "do_sample": True, "seed": 1},
        ("`seed`", "`best_of`"),
    ),
    "temperature 0": ({"temperature": 0}, ("`temperature`",)),
    "temperature below 0": ({"temperature": -0.5}, ("`temperature`",)),
    "repetition_penalty 0": ({"repetition_penalty": 0}, ("`repetition_penalty`",)),
    "frequency_penalty high": ({"frequency_penalty": 2.5}, ("`frequency_penalty`", "2")),
    "frequency_penalty low": ({"frequency_penalty": -2.5}, ("`frequency_penalty`", "-2")),
    "top_k 0": ({"top_k": 0}, ("`top_k`",)),
    "top_p 0": ({"top_p": 0}, ("`top_p`",)),
    "top_p above 1": ({"top_p": 1.5}, ("`top_p`",)),
    "typical_p 0": ({"typical_p": 0}, ("`typical_p`",)),
    "typical_p 1": ({"typical_p": 1.0}, ("`typical_p`",)),
    "max_new_tokens 0": ({"max_new_tokens": 0}, ("`max_new_tokens`",)),
    "max_new_tokens over the context": (
        {"max_new_tokens": MAX_TOTAL},
        ("`max_new_tokens`", str(MAX_TOTAL)),
    ),
    "too many stop strings": ({"stop": FIVE}, ("`stop`", "4", "5")),
    "truncate 0": ({"truncate": 0}, ("`truncate`",)),
    "truncate over the limit": (
        {"truncate": MAX_INPUT + 1},
        ("`truncate`", str(MAX_INPUT), str(MAX_INPUT + 1)),
    ),
    "seed below 0": ({"seed": -1}, ("seed`",)),
    "top_n_tokens over the limit": ({"top_n_tokens": 6}, ("`top_n_tokens`", "5", "6")),
    "grammar of no type": ({"grammar": {"type": "poem", "value": "x"}}, ("grammar",)),
    "grammar without a value": ({"grammar": {"type": "regex"}}, ("grammar",)),
    "a regex that is none": ({"grammar": {"type": "regex", "value": "(yes"}}, ("grammar",)),
    "a schema that is none": (
        {"grammar": {"type": "json", "value": {"type": "nonsense"}}},
        ("grammar",),
    ),
}
STREAM_ONLY: dict[str, tuple[dict[str, Any], str]] = {
    "best_of": ({"best_of": 2, "do_sample": True}, "`best_of`"),
    "decoder_input_details": ({"decoder_input_details": True}, "`decoder_input_details`"),
}
# One wrong value for each parameter, in the order in which they are to be told.
IN_ORDER: list[tuple[str, Any]] = [
    ("best_of", 3),
    ("temperature", 0),
    ("repetition_penalty", 0),
    ("frequency_penalty", 3),
    ("top_p", 1.5),
    ("typical_p", 1.5),
    ("top_k", 0),
    ("max_new_tokens", 0),
    ("stop", FIVE),
    ("top_n_tokens", 6),
    ("inputs", ""),
    ("truncate", 0),
]


def refusal(response) -> str:
    assert response.status_code == 422, response.text
    body = response.json()
    assert list(body) == ["error", "error_type"]
    assert body["error_type"] == "validation"
    assert body["error"].startswith("Input validation error: ")
    return body["error"]


@pytest.mark.parametrize("route", ["/", "/generate", "/generate_stream"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_a_422_that_names_it(echo, route, case):
    parameters, words = BROKEN[case]
    if route == "/generate_stream" and "best_of" in parameters:
        words = ("`best_of`",)
    sentence = refusal(post(echo, route, {"inputs": "hello", "parameters": parameters}))
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("case", STREAM_ONLY)
def test_streams_refuse_what_only_a_whole_answer_can_have(echo, case):
    parameters, word = STREAM_ONLY[case]
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 2, **parameters}}
    assert word in refusal(post(echo, "/generate_stream", body))
    assert word in refusal(post(echo, "/", {**body, "stream": True}))
    assert post(echo, "/generate", body).status_code == 200


@pytest.mark.parametrize("route", ["/", "/generate", "/generate_stream", "/tokenize"])
def test_the_prompt_has_limits_too(echo, route):
    if route != "/tokenize":
        assert "`inputs`" in refusal(post(echo, route, {"inputs": ""}))
    sentence = refusal(post(echo, route, {"inputs": "x" * MAX_INPUT}))
    assert "`inputs`" in sentence
    assert f"less than {MAX_TOTAL} tokens" in sentence
    assert f"Given: {MAX_TOTAL}" in sentence


def test_the_length_check_tells_limit_input_and_new_tokens(echo):
    """The total is checked before the input alone."""
    body = {"inputs": "x" * 4000, "parameters": {"max_new_tokens": 500}}
    sentence = refusal(post(echo, "/generate", body))
    for word in ("`inputs`", "`max_new_tokens`", str(MAX_TOTAL), "4001", "500"):
        assert word in sentence


@pytest.mark.parametrize("first", range(len(IN_ORDER)), ids=[name for name, _ in IN_ORDER])
def test_the_first_broken_rule_is_the_one_told(echo, first):
    broken = dict(IN_ORDER[first:])
    name = IN_ORDER[first][0]
    body = {"inputs": broken.pop("inputs", "hello"), "parameters": broken}
    assert f"`{name}`" in refusal(post(echo, "/generate", body))


def test_best_of_of_0_is_1(echo):
    assert generated(echo, "hello", best_of=0, max_new_tokens=3)["generated_text"] == "hel"


@pytest.mark.parametrize(
    "parameters",
    [
        {"best_of": 2, "do_sample": True},
        {"best_of": 2, "temperature": 0.5},
        {"best_of": 2, "top_k": 3},
        {"best_of": 2, "top_p": 0.5},
        {"best_of": 2, "typical_p": 0.5},
        {"frequency_penalty": 2.0},
        {"frequency_penalty": -2.0},
        {"top_p": 0.999},
        {"truncate": MAX_INPUT},
        {"stop": FIVE[:4]},
        {"stop": "one"},
        {"top_n_tokens": 5},
        {"seed": 2**64 - 1, "do_sample": True},
        {"max_new_tokens": MAX_TOTAL - 6, "stop": "o"},
    ],
    ids=str,
)
def test_what_lies_at_the_edge_is_taken(echo, parameters):
    generated(echo, "hello", **{"max_new_tokens": 4, **parameters})


def test_nulls_are_left_out_parameters(echo):
    """TGI's own client sends each optional field as null."""
    names = ("best_of", "temperature", "repetition_penalty", "frequency_penalty", "top_k", "top_p")
    names += ("typical_p", "seed", "truncate", "top_n_tokens", "grammar", "adapter_id")
    names += ("return_full_text", "max_new_tokens")
    answer = generated(echo, "hello", **dict.fromkeys(names))
    assert answer["generated_text"] == "hello"
    assert answer["details"]["finish_reason"] == "eos_token"


def test_an_adapter_nobody_knows_is_refused(echo):
    """TGI answers with the base model and says nothing."""
    body = {"inputs": "hello", "parameters": {"adapter_id": "nobody"}}
    response = post(echo, "/generate", body)
    assert response.status_code == 422
    assert "nobody" in response.json()["error"]
