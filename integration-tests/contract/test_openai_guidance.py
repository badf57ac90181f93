"""Guided output through OpenAI's own client: valid whatever the model would rather say."""

import json
import re

import jsonschema_rs
import pytest
from contract.wire import CHAT, answered, post, user
from openai import OpenAI, UnprocessableEntityError
from pydantic import BaseModel

GREEDY = {"model": "tgi", "temperature": 0, "max_tokens": 200}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mood": {"enum": ["glad", "sad"]},
    },
    "required": ["name", "age", "mood"],
    "additionalProperties": False,
}
QUESTION = "Give me a JSON object for Anna, who is 17 years old."


class Person(BaseModel):
    """What the client's own parser asks for."""

    name: str
    age: int


@pytest.fixture(scope="module")
def client(demo):
    return OpenAI(base_url=f"{demo.url}/v1", api_key="unused", max_retries=0)


def ask(client, text, **options):
    return client.chat.completions.create(**{**GREEDY, **options}, messages=user(text))


def said(answer) -> str:
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    return choice.message.content


def json_schema(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


@pytest.mark.parametrize("text", [QUESTION, "hello", "What is Backplane?"])
def test_a_json_object_is_an_object(client, text):
    answer = ask(client, text, response_format={"type": "json_object"}, max_tokens=300)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        assert answer.choices[0].message.content.lstrip().startswith("{")


@pytest.mark.parametrize("text", [QUESTION, "hello", "Tell me a story."])
@pytest.mark.parametrize("strict", [None, True, False])
def test_a_schema_is_obeyed(client, text, strict):
    form = json_schema(SCHEMA) if strict is None else json_schema(SCHEMA, strict=strict)
    value = json.loads(said(ask(client, text, response_format=form)))
    jsonschema_rs.validate(SCHEMA, value)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json", "value": SCHEMA},
        {"type": "json_object", "value": SCHEMA},
        {"type": "json_object", "value": json.dumps(SCHEMA)},
        {"type": "json_schema", "value": {"name": "answer", "schema": SCHEMA}},
    ],
    ids=["json", "json_object", "as a string", "json_schema"],
)
def test_tgis_own_form_is_taken_too(demo, form):
    body = {**GREEDY, "messages": user("hello"), "response_format": form}
    text = answered(demo, CHAT, body)["choices"][0]["message"]["content"]
    jsonschema_rs.validate(SCHEMA, json.loads(text))


def test_tgis_regex_form(demo):
    form = {"type": "regex", "value": "(yes|no), [0-9]{2}"}
    body = {**GREEDY, "messages": user("hello"), "response_format": form}
    text = answered(demo, CHAT, body)["choices"][0]["message"]["content"]
    assert re.fullmatch("(yes|no), [0-9]{2}", text)


@pytest.mark.parametrize(
    ("extension", "valid"),
    [
        ({"guided_choice": ["alpha", "beta gamma"]}, lambda text: text in {"alpha", "beta gamma"}),
        ({"guided_regex": "[a-c]{4}"}, re.compile("[a-c]{4}").fullmatch),
        ({"guided_json": SCHEMA}, lambda text: jsonschema_rs.is_valid(SCHEMA, json.loads(text))),
        (
            {"structured_outputs": {"choice": ["alpha", "beta"]}},
            lambda text: text in {"alpha", "beta"},
        ),
        (
            {"structured_outputs": {"regex": "[0-9]{3}"}},
            lambda text: re.fullmatch("[0-9]{3}", text),
        ),
        (
            {"structured_outputs": {"json": SCHEMA}},
            lambda text: jsonschema_rs.is_valid(SCHEMA, json.loads(text)),
        ),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("route", ["chat", "completions"])
def test_other_servers_names_for_it(client, extension, valid, route):
    if route == "chat":
        text = said(ask(client, "hello", extra_body=extension))
    else:
        answer = client.completions.create(**GREEDY, prompt="hello", extra_body=extension)
        text = answer.choices[0].text
    assert valid(text), text


def test_the_clients_own_parser(client):
    answer = client.chat.completions.parse(
        **GREEDY, messages=user(QUESTION), response_format=Person
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_a_guided_stream_is_the_guided_answer(client):
    form = json_schema(SCHEMA)
    chunks = ask(client, QUESTION, response_format=form, stream=True)
    text = "".join(one.delta.content or "" for chunk in chunks for one in chunk.choices)
    assert text == said(ask(client, QUESTION, response_format=form))


def test_a_guided_draw_repeats_with_its_seed(echo):
    """With echo, whose arithmetic is exact; a model's rounding may tip a draw."""
    client = OpenAI(base_url=f"{echo.url}/v1", api_key="unused", max_retries=0)
    options = {"response_format": json_schema(SCHEMA), "temperature": 1.5, "seed": 4}
    first = said(ask(client, "hello", **options))
    jsonschema_rs.validate(SCHEMA, json.loads(first))
    assert said(ask(client, "hello", **options)) == first


def test_guided_choices_of_one_request(client):
    answer = ask(client, "hello", response_format=json_schema(SCHEMA), n=3, temperature=1.2, seed=1)
    for choice in answer.choices:
        jsonschema_rs.validate(SCHEMA, json.loads(choice.message.content))


def test_guided_and_free_requests_do_not_disturb_each_other(client):
    """Side by side in one batch, and after one another."""
    free = said(ask(client, "What is Backplane?", max_tokens=60))
    guided = said(ask(client, QUESTION, response_format=json_schema(SCHEMA)))
    assert said(ask(client, "What is Backplane?", max_tokens=60)) == free
    assert said(ask(client, QUESTION, response_format=json_schema(SCHEMA))) == guided


@pytest.mark.parametrize(
    "form",
    [
        json_schema({"type": "nonsense"}),
        json_schema({"$ref": "#/nowhere"}),
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": 5}},
        {"type": "regex", "value": "(unclosed"},
        {"type": "poem"},
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_format_is_refused_before_the_first_byte(client, form, stream):
    with pytest.raises(UnprocessableEntityError) as refused:
        ask(client, "hello", response_format=form, stream=stream)
    assert refused.value.param.startswith("response_format")


def test_a_format_beside_tools_is_refused_unless_none_may_be_called(demo):
    """As in TGI, which also refuses it beside an empty list of tools."""
    tool = {"type": "function", "function": {"name": "ping"}}
    body = {**GREEDY, "messages": user(QUESTION), "response_format": {"type": "json_object"}}
    response = post(demo, CHAT, {**body, "tools": [tool]})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "response_format"
    for harmless in ({"tools": []}, {"tools": [tool], "tool_choice": "none"}):
        text = answered(demo, CHAT, {**body, **harmless})["choices"][0]["message"]["content"]
        assert isinstance(json.loads(text), dict)
