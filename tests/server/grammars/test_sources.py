"""What clients write, as wire grammars; what cannot be one, by name."""

import json
import re
import tracemalloc

import pytest
from backplane_core.errors import ValidationError
from backplane_server.grammars import sources
from backplane_server.grammars.json_schemas import MAX_DEPTH
from hypothesis import given
from hypothesis import strategies as st

NAME = "grammar.value"

CLOSED = {"additionalProperties": False}


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
                "properties": {"a": {"properties": {"b": {}}, "type": "object", **CLOSED}},
                "required": ["a"],
                "type": "object",
                **CLOSED,
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
            {"type": "object", "properties": {"$ref": {"type": "string"}, "type": True}, **CLOSED},
        ),
        ({"enum": [{"$ref": 3}, {"properties": 1}]}, {"enum": [{"$ref": 3}, {"properties": 1}]}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {}}}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}),
        ({"items": [{"type": "null"}]}, {"items": [{"type": "null"}]}),
        (nested(MAX_DEPTH), nested(MAX_DEPTH)),
    ],
)
def test_schemas(value, schema):
    assert schema_of(value) == schema


@pytest.mark.parametrize(
    "unasked",
    [
        {"uniqueItems": False},
        {"not": False},
        {"unevaluatedProperties": True},
        {"unevaluatedItems": {}},
        {"propertyNames": {}},
        {"dependencies": {}},
        {"dependentRequired": {"a": []}},
        {"dependentSchemas": {"a": True}},
        {"minContains": 2, "maxContains": 3},
        {"contains": {"type": "string"}, "minContains": 0},
        {"if": {"type": "string"}},
        {"then": {"type": "string"}, "else": False},
        {"if": {"type": "string"}, "then": True, "else": {}},
        {"$dynamicAnchor": "node"},
        {"$recursiveAnchor": False},
    ],
)
def test_a_keyword_that_asks_for_nothing_is_left_out(unasked):
    inner = {"type": "array", **unasked}
    bare = {"type": "array"}
    assert schema_of({**bare, **unasked, "items": inner}) == {**bare, "items": bare}


@pytest.mark.parametrize(
    "asked",
    [
        {"uniqueItems": True},
        {"uniqueItems": 0},
        {"not": {}},
        {"not": True},
        {"unevaluatedProperties": False},
        {"propertyNames": {"minLength": 1}},
        {"dependentRequired": {"a": [], "b": ["c"]}},
        {"dependentSchemas": {"a": False}},
        {"contains": {}},
        {"contains": {}, "minContains": False},
        {"contains": {}, "minContains": 0, "maxContains": 1},
        {"if": {}, "then": {"type": "null"}},
        {"if": {}, "then": True, "else": False},
        {"$dynamicRef": "#node"},
        {"$recursiveAnchor": True},
    ],
)
def test_a_keyword_that_asks_for_something_stays(asked):
    left = {key: value for key, value in asked.items() if (key, value) != ("then", True)}
    assert json.dumps(schema_of({"items": asked})) == json.dumps({"items": left})


def test_properties_may_be_called_as_keywords_are():
    schema = {"type": "object", "properties": {"uniqueItems": False, "if": {}, "not": False}}
    assert schema_of(schema) == schema | CLOSED


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
        ({"properties": {"k" * 9000: {"not": 5}}}, f"properties.{'k' * 40}….not` must be a JSON"),
        ({"minimum": 10**400}, "`grammar.value.minimum` is a number that is too large"),
        (
            {"items": {"enum": [1, {"a": -(10**309)}]}},
            "`grammar.value.items.enum[1].a` is a number that is too large",
        ),
        (f'{{"minimum": 1{"0" * 400}}}', "`grammar.value.minimum` is a number that is too large"),
        ('{"minimum": 1e400}', "`grammar.value` holds a number that is too large"),
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


def test_a_number_that_can_be_read_and_a_text_of_digits_are_taken():
    schema = {"const": 10**308, "enum": ["1" * 400]}
    assert schema_of(schema) == schema


def most_memory(make):
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError):
            make()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("where", ["properties", "anyOf"])
def test_a_long_key_above_many_schemas_costs_no_more_than_its_length(where):
    many = {f"{number}": True for number in range(3000)} | {"last": 5}
    below = {where: many if where == "properties" else list(many.values())}
    schema = {"properties": {"A" * 60_000: below}}
    assert most_memory(lambda: sources.json_schema(schema, NAME)) < 5_000_000


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


def test_choices_that_are_too_many_are_not_looked_at_to_the_end():
    with pytest.raises(ValidationError, match=r"`grammar\.value` has more than 131072 bytes"):
        sources.choice([*["a"] * 70_000, 5], NAME)
    with pytest.raises(ValidationError, match=r"`grammar\.value` has 131\d\d\d bytes"):
        sources.choice(["ä" * 65_600], NAME)


def test_a_choice_that_is_too_long_is_not_built():
    words = ["x" * 4_000_000]
    assert most_memory(lambda: sources.choice(words, NAME)) < 1_000_000
