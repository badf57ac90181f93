"""Grammars over HTTP: obeyed, refused by name before the first byte, or not offered at all."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def stack(stack_module):
    with stack_module.Stack(payload_limit=4_000_000) as running:
        yield running


def body(**fields):
    return {
        "messages": [{"role": "user", "content": "say something"}],
        "max_tokens": 100,
        "temperature": 0,
        **fields,
    }


def text_of(response):
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def test_a_schema_is_obeyed(stack):
    schema = {"properties": {"age": {"type": "integer", "maximum": 99, "minimum": 1}}}
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = stack.post(CHAT, body(response_format=asked))
    assert isinstance(json.loads(text_of(answer)), dict)
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


def test_gbnf_is_obeyed(stack):
    grammar = 'root ::= ("a" | "b") digits\ndigits ::= [0-9] [0-9]\n'
    assert re.fullmatch("[ab][0-9]{2}", text_of(stack.post(CHAT, body(guided_grammar=grammar))))


def test_a_schema_with_keywords_that_ask_for_nothing_is_obeyed(stack):
    schema = {
        "type": "array",
        "items": {"const": 1, "not": False},
        "uniqueItems": False,
        "minItems": 2,
        "maxItems": 2,
    }
    assert json.loads(text_of(stack.post(CHAT, body(guided_json=schema)))) == [1, 1]


@pytest.mark.parametrize("stream", [False, True])
def test_tools_whose_schemas_are_too_large_to_enforce_are_refused(stack, stream):
    parameters = {"properties": {"a": {"enum": ["x" * 200_000]}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    answer = stack.post(CHAT, body(stream=stream, tools=[tool], tool_choice="required"))
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "tools"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guided_regex", "("),
        ("guided_regex", "a" * 10**6),
        ("guided_json", {"uniqueItems": True}),
        ("guided_json", {"type": "integer", "minimum": 10**400}),
        ("guided_json", {"$ref": "#"}),
        ("guided_json", {"$ref": "http://example.org"}),
        ("guided_json", {"properties": {f"p{n}": {"type": "string"} for n in range(10_000)}}),
        ("guided_grammar", "neither this nor that"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_the_first_byte(stack, stream, field, value):
    answer = stack.post(CHAT, body(stream=stream, **{field: value}))
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == field
    assert f"`{field}" in error["message"]
    assert len(error["message"]) < 600


def test_requests_beside_pathological_grammars_are_answered(stack):
    pathological = ["(a+)+b", "((a{1,1000}){1,1000})", "(a|b)*a(a|b){60}", r"(\p{L}{1,300}){99}"]
    with ThreadPoolExecutor(8) as pool:
        hard = [
            pool.submit(stack.post, CHAT, body(guided_regex=pattern, max_tokens=20))
            for pattern in pathological * 3
        ]
        plain = [pool.submit(stack.post, CHAT, body()) for _ in range(12)]
        assert all(text_of(one.result()) for one in plain)
        assert {one.result().status_code for one in hard} <= {200, 422}


def test_where_the_operator_wants_none_they_are_refused(stack_module):
    with stack_module.Stack(disable_grammar_support=True) as stack:
        answer = stack.post(CHAT, body(guided_regex="a"))
        assert answer.status_code == 422
        assert "grammar is not supported" in answer.json()["error"]["message"]
        assert "--disable-grammar-support" in answer.json()["error"]["message"]
        assert text_of(stack.post(CHAT, body()))
