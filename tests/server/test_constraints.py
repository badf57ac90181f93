"""What the text must obey, in every way in which clients say it, on both of OpenAI's routes."""

import json
import re

import msgspec
import openai
import pytest
from backplane_core.errors import ValidationError
from backplane_server.dialects.chat_types import ChatRequest
from backplane_server.dialects.completions_types import CompletionRequest
from backplane_server.dialects.constraints import constraint_of
from pydantic import BaseModel

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BODIES = {CHAT: {"messages": [{"role": "user", "content": "x"}]}, TEXT: {"prompt": "x"}}
TYPES = {CHAT: ChatRequest, TEXT: CompletionRequest}
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "legs": {"const": 4}},
    "required": ["kind", "legs"],
    "additionalProperties": False,
}
JSON_FORMS = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "description": "b", "strict": True, "schema": SCHEMA},
        }
    },
    {"response_format": {"type": "json_schema", "value": {"name": "a", "schema": SCHEMA}}},
    {"response_format": {"type": "json_schema", "value": {"schema": SCHEMA}}},
    {"response_format": {"type": "json", "value": SCHEMA}},
    {"response_format": {"type": "json", "value": json.dumps(SCHEMA)}},
    {"response_format": {"type": "json_object", "value": SCHEMA}},
    {"guided_json": SCHEMA},
    {"guided_json": json.dumps(SCHEMA)},
    {"structured_outputs": {"json": SCHEMA}},
]
REGEX_FORMS = [
    {"response_format": {"type": "regex", "value": "[ab]{3}"}},
    {"guided_regex": "[ab]{3}"},
    {"structured_outputs": {"regex": "[ab]{3}"}},
    {"guided_grammar": "start: /[ab]/ /[ab]{2}/"},
    {"structured_outputs": {"grammar": "root ::= [ab] [ab] [ab]"}},
]
CHOICE_FORMS = [
    {"guided_choice": ["aab", "b.b"]},
    {"structured_outputs": {"choice": ["aab", "b.b"]}},
]
NO_FORMS = [
    {},
    {"response_format": None},
    {"response_format": {"type": "text"}},
    {"structured_outputs": None},
    {"structured_outputs": {}},
    {"structured_outputs": {"json_object": False}},
    {"guided_json": None, "guided_regex": None, "guided_choice": None},
]


def answer(stack, path, fields):
    body = {**BODIES[path], "temperature": 0, "max_tokens": 200, **fields}
    response = stack.post(path, body)
    assert response.status_code == 200, response.text
    [choice] = response.json()["choices"]
    assert choice["finish_reason"] == "stop"
    return choice["text"] if path == TEXT else choice["message"]["content"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("fields", JSON_FORMS, ids=json.dumps)
def test_json_by_a_schema(stack, path, fields):
    found = json.loads(answer(stack, path, fields))
    assert found["legs"] == 4
    assert found["kind"] in {"cat", "dog"}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"json_object": True}},
    ],
)
def test_any_json_object(stack, path, fields):
    assert isinstance(json.loads(answer(stack, path, fields)), dict)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("fields", REGEX_FORMS, ids=json.dumps)
def test_texts_by_expressions_and_grammars(stack, path, fields):
    assert re.fullmatch("[ab]{3}", answer(stack, path, fields))


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("fields", CHOICE_FORMS, ids=json.dumps)
def test_one_of_several_texts(stack, path, fields):
    assert answer(stack, path, fields) in {"aab", "b.b"}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("fields", NO_FORMS, ids=json.dumps)
def test_what_constrains_nothing(path, fields):
    body = msgspec.convert({**BODIES[path], **fields}, TYPES[path])
    assert constraint_of(body) is None


FORMS = [*JSON_FORMS, *REGEX_FORMS, *CHOICE_FORMS]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (one, other)
        for number, one in enumerate(FORMS)
        for other in FORMS[number + 1 :]
        if not one.keys() & other.keys()
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_two_constraints_are_refused_by_name(one, other):
    body = msgspec.convert({**BODIES[CHAT], **one, **other}, ChatRequest)
    with pytest.raises(ValidationError) as caught:
        constraint_of(body)
    named = [name for name in (*one, *other) if f"`{name}" in caught.value.message]
    assert len(named) == 2
    assert caught.value.parameter.split(".")[0] in named


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"response_format": {"type": "regex", "value": "("}}, "response_format"),
        ({"guided_grammar": "start: nothing"}, "guided_grammar"),
        ({"guided_json": {"$ref": "http://example.com/x"}}, "guided_json"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_constraint_that_cannot_be_followed_is_named(stack, path, fields, name, stream):
    response = stack.post(path, {**BODIES[path], **fields, "stream": stream})
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"].startswith(name)


def test_support_that_is_switched_off(stack_module):
    with stack_module.Stack(disable_grammar_support=True) as stack:
        for path, body in BODIES.items():
            fields = {"response_format": {"type": "json_object"}}
            response = stack.post(path, {**body, **fields})
            assert response.status_code == 422
            assert response.json()["error"]["param"] == "response_format"
            assert stack.post(path, {**body, "max_tokens": 1}).status_code == 200


class Pet(BaseModel):
    kind: str
    legs: int


def test_with_openais_client(stack):
    with openai.OpenAI(base_url=stack.url + "/v1", api_key="none", max_retries=0) as client:
        parsed = client.chat.completions.parse(
            model="tgi",
            messages=[{"role": "user", "content": '{"kind":"cat","legs":4}'}],
            temperature=0,
            response_format=Pet,
            max_tokens=300,
        )
    assert parsed.choices[0].message.parsed == Pet(kind="cat", legs=4)
