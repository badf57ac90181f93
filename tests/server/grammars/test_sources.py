"""What clients write, as wire grammars; what cannot be one, by name."""

import json
import re

import pytest
from backplane_core.errors import ValidationError
from backplane_server.grammars import sources
from backplane_server.grammars.json_schemas import MAX_DEPTH
from hypothesis import given
from hypothesis import strategies as st

NAME = "grammar.value"


def schema_of(value):
    grammar = sources.json_schema(value, NAME)
    assert grammar.kind == "json_schema"
    return json.loads(grammar.source)


def nested(depth):
    schema = {"type": "integer"}
    for _ in range(depth - 1):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"type": "string"}, {"type": "string"}),
        ('{"type": "string"}', {"type": "string"}),
        (True, {}),
        ("true", {}),
        ({}, {}),
        # As TGI's clients write it.
        (
            {"properties": {"a": {"properties": {"b": {}}}}, "required": ["a"]},
            {
                "properties": {"a": {"properties": {"b": {}}, "type": "object"}},
                "required": ["a"],
                "type": "object",
            },
        ),
        (
            {"properties": {"a": {}}, "anyOf": [{"type": "object"}, {"type": "null"}]},
            {"properties": {"a": {}}, "anyOf": [{"type": "object"}, {"type": "null"}]},
        ),
        ({"$schema": "x", "$id": "http://a/b", "type": "null"}, {"type": "null"}),
        # A property may have any name.
        (
            {"type": "object", "properties": {"$ref": {"type": "string"}, "type": True}},
            {"type": "object", "properties": {"$ref": {"type": "string"}, "type": True}},
        ),
        ({"enum": [{"$ref": 3}, {"properties": 1}]}, {"enum": [{"$ref": 3}, {"properties": 1}]}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {}}}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}),
        ({"items": [{"type": "null"}]}, {"items": [{"type": "null"}]}),
        (nested(MAX_DEPTH), nested(MAX_DEPTH)),
    ],
)
def test_schemas(value, schema):
    assert schema_of(value) == schema


def test_the_order_of_properties_is_kept():
    source = sources.json_schema({"properties": {"z": {}, "a": {}, "m": {}}}, NAME).source
    assert re.findall(r'"([zam])"', source) == ["z", "a", "m"]


def test_the_clients_own_object_is_left_alone():
    schema = {"$id": "x", "properties": {}}
    sources.json_schema(schema, NAME)
    assert schema == {"$id": "x", "properties": {}}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "must be a JSON schema"),
        (5, "must be a JSON schema"),
        ([], "must be a JSON schema"),
        ("[]", "must be a JSON schema"),
        ("{", "holds no JSON"),
        ("\ud800", "holds no JSON"),
        ({"const": "\ud800"}, "is not Unicode"),
        (False, "nothing can match"),
        ({"type": "strang"}, "`grammar.value.type` must be of object, array"),
        ({"type": 5}, "`grammar.value.type` must be of"),
        ({"type": ["string", {}]}, "`grammar.value.type` must be of"),
        ({"properties": []}, "`grammar.value.properties` must be an object"),
        ({"properties": {"a": 5}}, "`grammar.value.properties.a` must be a JSON schema"),
        ({"anyOf": {}}, "`grammar.value.anyOf` must be a list"),
        ({"allOf": [1]}, "`grammar.value.allOf[0]` must be a JSON schema"),
        ({"items": [1]}, "`grammar.value.items[0]` must be a JSON schema"),
        ({"$ref": "http://example.org/a"}, "`grammar.value.$ref` must refer to a place in"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "`grammar.value.items.$ref` must refer"),
        ({"$ref": 5}, "`grammar.value.$ref` must refer"),
        (nested(MAX_DEPTH + 1), f"more than {MAX_DEPTH} deep"),
        ({"enum": ["x" * 200_000]}, "at most 131072 are taken"),
        ('"' + "x" * 200_000 + '"', "at most 131072 are taken"),
    ],
)
def test_what_is_no_schema_is_refused_by_name(value, words):
    with pytest.raises(ValidationError) as caught:
        sources.json_schema(value, NAME)
    assert words in caught.value.message
    assert caught.value.parameter == NAME
    assert len(caught.value.message) < 300


def test_what_nests_beyond_any_stack_is_refused():
    deep = current = {}
    for _ in range(200_000):
        current["not"] = current = {}
    with pytest.raises(ValidationError, match="nests too deep"):
        sources.json_schema(deep, NAME)
    while deep:  # so that freeing it needs no stack either
        deep = deep.pop("not", None)
    with pytest.raises(ValidationError):
        sources.json_schema("[" * 100_000, NAME)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "$ref", "anyOf", "$defs", "not", "enum", "a", "$id"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_a_schema_or_refused_with_a_sentence(value):
    refusal, source = None, "{}"
    try:
        source = sources.json_schema(value, NAME).source
    except ValidationError as error:
        refusal = error
    assert isinstance(json.loads(source), dict)
    assert refusal is None or (NAME in refusal.message and refusal.parameter == NAME)


def test_any_object():
    assert json.loads(sources.json_object().source) == {"type": "object"}


def test_texts_are_taken_as_they_are():
    assert sources.regex("a|b", NAME).source == "a|b"
    assert sources.regex("a|b", NAME).kind == "regex"
    assert sources.grammar("start: A\n", NAME).source == "start: A\n"
    assert sources.grammar("start: A\n", NAME).kind == "lark"


@pytest.mark.parametrize("make", [sources.regex, sources.grammar])
@pytest.mark.parametrize("value", ["", None, 5, ["a"], "x" * 131_073])
def test_what_is_no_text_is_refused_by_name(make, value):
    with pytest.raises(ValidationError, match=r"`grammar\.value`") as caught:
        make(value, NAME)
    assert caught.value.parameter == NAME


@pytest.mark.parametrize("value", ["", None, [], "abc", {"a": 1}, ["a", ""], ["a", 5]])
def test_what_is_no_choice_is_refused_by_name(value):
    with pytest.raises(ValidationError, match=r"`grammar\.value") as caught:
        sources.choice(value, NAME)
    assert caught.value.parameter.startswith(NAME)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_a_choice_matches_its_words_and_nothing_else(words):
    pattern = re.compile(sources.choice(words, NAME).source)
    for word in words:
        assert pattern.fullmatch(word)
        assert bool(pattern.fullmatch(word + "x")) == (word + "x" in words)
