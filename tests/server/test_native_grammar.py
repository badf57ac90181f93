"""TGI's `grammar`: its forms, what is wrong with one, and that the text obeys."""

import pytest
from backplane_core.errors import ValidationError
from backplane_core.messages import Grammar
from backplane_server.dialects.native_grammar import grammar_of
from backplane_server.dialects.native_types import GrammarForm
from text_generation import Client
from text_generation.types import Grammar as ClientGrammar
from text_generation.types import GrammarType

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TEXT = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'
CLOSED = TEXT.removesuffix("}") + ',"additionalProperties":false}'
YES_OR_NO = {"type": "regex", "value": "(yes|no)"}


@pytest.mark.parametrize("kind", ["json", "json_object"])
@pytest.mark.parametrize("value", [SCHEMA, TEXT])
def test_a_schema_comes_as_an_object_or_as_text(kind, value):
    assert grammar_of(GrammarForm(type=kind, value=value)) == Grammar(
        kind="json_schema", source=CLOSED
    )


def test_a_named_schema_lies_inside():
    for value in ({"schema": SCHEMA}, {"name": "x", "strict": True, "schema": SCHEMA}):
        assert grammar_of(GrammarForm(type="json_schema", value=value)).source == CLOSED


def test_a_schema_without_properties_is_taken():
    for value in ({}, {"type": "array", "items": {"type": "integer"}}, {"enum": ["a", 1]}):
        assert grammar_of(GrammarForm(type="json", value=value)).kind == "json_schema"


def test_none_is_none():
    assert grammar_of(None) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json", None),
        ("json", 5),
        ("json", "{"),
        ("json", {"properties": 5}),
        ("json", {"type": "thing"}),
        ("json", {"$ref": "http://elsewhere/schema"}),
        ("json_schema", SCHEMA),
        ("json_schema", "text"),
        ("json_schema", {"name": "x"}),
        ("regex", None),
        ("regex", ""),
        ("regex", {"a": 1}),
        ("regex", "a" * 2_000_000),
    ],
)
def test_a_value_that_is_not_what_its_type_says(kind, value):
    with pytest.raises(ValidationError) as caught:
        grammar_of(GrammarForm(type=kind, value=value))
    assert caught.value.parameter.startswith("grammar.value")


def post(stack, grammar, path="/generate", **parameters):
    body = {"inputs": "x", "parameters": {"grammar": grammar, "max_new_tokens": 9, **parameters}}
    return stack.post(path, body)


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
@pytest.mark.parametrize(
    ("grammar", "word"),
    [
        ({"value": "a"}, "grammar.type"),
        ({"type": "regex"}, "grammar.value"),
        ({"type": "poem", "value": "a"}, "grammar.type"),
        ("a+", "grammar"),
        ({"type": "regex", "value": "(a"}, "grammar"),
        ({"type": "json", "value": "nonsense"}, "grammar.value"),
    ],
)
def test_what_is_no_grammar_is_refused_before_the_first_byte(stack, path, grammar, word):
    response = post(stack, grammar, path)
    assert response.status_code == 422
    assert response.json()["error_type"] == "validation"
    assert word in response.json()["error"]


def test_the_text_obeys(stack):
    for path in ("/generate", "/generate_stream"):
        response = post(stack, YES_OR_NO, path, details=True)
        assert response.status_code == 200, response.text
    answer = post(stack, YES_OR_NO, best_of=2, do_sample=True, details=True).json()
    texts = {answer["generated_text"], answer["details"]["best_of_sequences"][0]["generated_text"]}
    assert texts <= {"yes", "no"}


def test_tgis_client_sends_one(stack):
    grammar = ClientGrammar(type=GrammarType.Regex, value="(yes|no)")
    answer = Client(stack.url).generate("x", grammar=grammar, max_new_tokens=9)
    assert answer.generated_text in {"yes", "no"}


def test_length_is_looked_at_before_a_grammar(stack):
    response = post(stack, {"type": "regex", "value": "(a"}, max_new_tokens=5000)
    assert "`max_new_tokens`" in response.json()["error"]


def test_without_support_it_is_refused_last(stack_module):
    with stack_module.Stack(disable_grammar_support=True) as stack:
        response = post(stack, YES_OR_NO)
        assert response.status_code == 422
        assert "grammar" in response.json()["error"]
        assert "--disable-grammar-support" in response.json()["error"]
        response = post(stack, YES_OR_NO, max_new_tokens=5000)
        assert "`max_new_tokens`" in response.json()["error"]
        assert post(stack, None).status_code == 200
