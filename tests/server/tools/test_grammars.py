"""What a family's grammar allows is read as calls, and their arguments obey the schemas."""

import json
import tracemalloc

import jsonschema_rs  # comes with schemathesis
import pytest
from backplane_core.errors import ToolError, ValidationError
from backplane_core.testing.tool_parsers import read_answer
from backplane_core.tool_parsers import ToolFunction
from backplane_server.text.reasoning import FAMILIES as REASONING
from backplane_server.text.reasoning_grammar import after_reasoning
from backplane_server.tools.reading import AnswerReader
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.tools.answers import FUNCTIONS, PARSERS
from tests.server.tools.walk import SPECIAL_IDS, allows, walk

LEAVES = st.sampled_from(
    [
        {"type": "string", "maxLength": 8},
        {"type": "string", "description": "any", "maxLength": 3},
        {"type": "integer", "minimum": -20, "maximum": 20},
        {"type": "number", "minimum": 0, "maximum": 9},
        {"type": "boolean"},
        {"type": "boolean", "description": "yes or no"},
        {"type": "null"},
        {"enum": ["a", "b c", 1, None, True]},
        {"const": 'it\'s "quoted"'},
        {"type": ["string", "null"], "maxLength": 4},
        {"$ref": "#/$defs/unit"},
    ]
)
DEFS = {"unit": {"enum": ["celsius", "kelvin"]}}


def objects(values, names):
    return st.dictionaries(names, values, max_size=4).flatmap(
        lambda properties: st.builds(
            lambda required, closed: {
                "type": "object",
                "properties": properties,
                "required": sorted(required),
                **({"additionalProperties": False} if closed else {}),
            },
            st.sets(st.sampled_from(sorted(properties))) if properties else st.just(set()),
            st.booleans(),
        )
    )


KEYS = st.sampled_from(["a", "b_2", "city", "when"])
NESTED = LEAVES | st.builds(
    lambda items: {"type": "array", "items": items, "maxItems": 2}, LEAVES
) | objects(LEAVES, KEYS).map(lambda schema: {**schema, "additionalProperties": False})  # fmt: skip
PARAMETERS = objects(NESTED, KEYS).map(lambda schema: {**schema, "$defs": DEFS})
OFFERED = st.lists(PARAMETERS, min_size=1, max_size=3).map(
    lambda schemas: [
        ToolFunction(name=f"tool-{number}_x", parameters=schema)
        for number, schema in enumerate(schemas)
    ]
)


def grammar_of(family, functions, *, parallel=True, special=False):
    parser = PARSERS[family]
    tokens = SPECIAL_IDS if special else {}
    return parser.grammar(
        functions,
        parallel=parallel,
        special_tokens={key: tokens[key] for key in parser.special_literals if key in tokens},
    )


def check(functions, calls, *, parallel):
    assert len(calls) >= 1 if parallel else len(calls) == 1
    schemas = {function.name: function.parameters for function in functions}
    for name, arguments in calls:
        schema = {**schemas[name], "type": "object"}
        value = json.loads(arguments)
        assert jsonschema_rs.validator_for(schema).is_valid(value), (schema, value)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("family", PARSERS)
@settings(max_examples=15, deadline=None)
@given(functions=OFFERED, parallel=st.booleans(), seed=st.integers(0, 2**32))
def test_what_a_grammar_allows_is_calls_that_obey(family, special, functions, parallel, seed):
    grammar = grammar_of(family, functions, parallel=parallel, special=special)
    text = walk(grammar, seed)
    if text is None:  # a walk without an end; the next test counts them
        return
    content, calls = read_answer(PARSERS[family], functions, [text])
    assert content == ""
    check(functions, calls, parallel=parallel)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("family", PARSERS)
def test_most_walks_come_to_an_end(family, special):
    grammar = grammar_of(family, FUNCTIONS[:2], special=special)
    ended = [walk(grammar, seed) for seed in range(10)]
    assert sum(text is not None for text in ended) >= 8


CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
NOW = '{"name": "now", "arguments": {}}'
NATURAL = {
    "hermes": [
        f"<tool_call>{CALL}</tool_call>",
        f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{NOW}\n</tool_call>",
    ],
    "llama3_json": [
        '{"name": "get_weather", "parameters": {"city": "Oslo", "days": 2}}',
        f"{CALL}; {NOW}".replace("arguments", "parameters"),
    ],
    "mistral": [f"[TOOL_CALLS][{CALL}, {NOW}]"],
    "pythonic": ['[get_weather(city="Oslo", days=2), now()]', '[get_weather(city="Oslo")]'],
    "json": [f"[{CALL}]", f"[{CALL}, {NOW}]"],
}
NEWER_MISTRAL = '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]now[ARGS]{}'
ARRAY_MISTRAL = {"[TOOL_CALLS]": SPECIAL_IDS["[TOOL_CALLS]"]}


def special_of(family):
    literals = PARSERS[family].special_literals
    return {literal: SPECIAL_IDS[literal] for literal in literals if literal in SPECIAL_IDS}


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("family", "text"), [(f, t) for f, ts in NATURAL.items() for t in ts])
def test_a_grammar_allows_what_the_models_write(family, text, special):
    tokens = special_of(family) if special else {}
    if family == "mistral":
        tokens = ARRAY_MISTRAL if special else {}
    grammar = PARSERS[family].grammar(FUNCTIONS, parallel=True, special_tokens=tokens)
    assert allows(grammar, text, tokens)
    if tokens:
        assert not allows(grammar, text, {}), "the mark is a token, which text cannot spell"


def test_mistral_with_a_token_for_arguments_writes_the_newer_form():
    tokens = special_of("mistral")
    grammar = PARSERS["mistral"].grammar(FUNCTIONS, parallel=True, special_tokens=tokens)
    assert allows(grammar, NEWER_MISTRAL, tokens)
    assert not allows(grammar, NATURAL["mistral"][0], tokens)


@pytest.mark.parametrize("family", PARSERS)
@pytest.mark.parametrize(
    ("arguments", "obeys"),
    [
        ({"city": "Oslo"}, True),
        ({"city": "Oslo", "days": 2}, True),
        ({}, False),
        ({"city": 1}, False),
        ({"city": "Oslo", "more": 1}, False),
    ],
)
def test_arguments_have_to_obey_the_schema(family, arguments, obeys):
    call = {"name": "get_weather", "arguments": arguments}
    keywords = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items())
    text = {
        "hermes": f"<tool_call>{json.dumps(call)}</tool_call>",
        "mistral": f"[TOOL_CALLS][{json.dumps(call)}]",
        "llama3_json": json.dumps({"name": "get_weather", "parameters": arguments}),
        "pythonic": f"[get_weather({keywords})]",
        "json": f"[{json.dumps(call)}]",
    }[family]
    assert allows(grammar_of(family, FUNCTIONS), text, {}) is obeys


@pytest.mark.parametrize(
    ("parameters", "arguments", "obeys"),
    [
        ({}, "{}", True),
        ({}, '{"a": 1}', False),
        ({"properties": {"a": {}}}, '{"b": 1}', False),
        ({"properties": {"a": {}}, "additionalProperties": True}, '{"b": 1}', True),
        ({"type": "object"}, '{"b": 1}', True),
        ({"properties": {}, "required": ["b"]}, '{"b": 1}', True),
        ({"anyOf": [{"properties": {"b": {}}}], "properties": {}}, '{"b": 1}', True),
    ],
)
def test_there_are_no_properties_but_those_listed_where_that_is_meant(parameters, arguments, obeys):
    grammar = grammar_of("json", [ToolFunction(name="f", parameters=parameters)], parallel=False)
    assert allows(grammar, f'{{"name": "f", "arguments": {arguments}}}', {}) is obeys


@pytest.mark.parametrize("family", PARSERS)
def test_words_for_people_take_no_room_in_a_grammar(family):
    """They are told by keyword, not by name: a property may be called "description"."""
    parameters = {
        "description": "SECRET",
        "properties": {
            "description": {"type": "string", "description": "SECRET", "default": "SECRET"},
            "title": {"enum": ["x"], "title": "SECRET"},
            "on": {"type": "boolean", "description": "SECRET"},
            "list": {"type": "array", "items": {"type": "integer", "title": "SECRET"}},
        },
        "required": ["description", "title", "on"],
        "examples": ["SECRET"],
    }
    grammar = grammar_of(family, [ToolFunction(name="f", parameters=parameters)], parallel=False)
    assert "SECRET" not in grammar.source
    content, calls = read_answer(PARSERS[family], [ToolFunction(name="f")], [walk(grammar, 3)])
    value = json.loads(calls[0][1])
    assert content == ""
    assert isinstance(value["description"], str)
    assert value["title"] == "x"
    assert isinstance(value["on"], bool)


@pytest.mark.parametrize("family", PARSERS)
def test_one_call_is_one_where_calls_are_not_parallel(family):
    one = walk(grammar_of(family, FUNCTIONS[1:2], parallel=False), 0)
    assert read_answer(PARSERS[family], FUNCTIONS, [one]) == ("", (("now", "{}"),))
    grammar = grammar_of(family, FUNCTIONS[1:2], parallel=False)
    for between in ("", "\n", "; ", ", "):
        assert not allows(grammar, one + between + one, {})


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"a-b": {"type": "string"}}},
        {"type": "object", "properties": {"class": {"type": "string"}}},
        {"type": "object", "properties": {"ä": {"type": "string"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"anyOf": [{"properties": {"a": {}}}]},
        {"properties": {}, "required": ["a"]},
    ],
)
def test_what_python_cannot_say_is_refused_with_the_function(parameters):
    function = ToolFunction(name="f_1", parameters=parameters)
    with pytest.raises(ToolError, match="f_1"):
        grammar_of("pythonic", [function])


def test_a_pythonic_value_may_refer_to_the_whole_schema():
    """References move with the schema, so a tree of nodes stays one."""
    node = {"type": "object", "properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}}
    grammar = grammar_of("pythonic", [ToolFunction(name="grow", parameters=node)])
    assert allows(grammar, '[grow(child={"child": {"name": "x"}})]', {})
    assert not allows(grammar, '[grow(child={"child": {"name": 1}})]', {})


def test_a_pythonic_value_brings_the_definitions_it_reaches_and_no_others():
    parameters = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/pair~1of"},
            "b": {"type": "array", "items": {"$ref": "#/definitions/unit/anyOf/0"}},
        },
        "required": ["a", "b"],
        "$defs": {
            "pair/of": {"type": "array", "items": {"$ref": "#/$defs/number"}, "maxItems": 2},
            "number": {"type": "integer"},
            "other": {"const": "UNREACHED"},
        },
        "definitions": {"unit": {"anyOf": [{"enum": ["celsius"]}, {"type": "null"}]}},
    }
    grammar = grammar_of("pythonic", [ToolFunction(name="f", parameters=parameters)])
    assert "UNREACHED" not in grammar.source
    assert allows(grammar, '[f(a=[1, 2], b=["celsius"])]', {})
    assert not allows(grammar, '[f(a=["1"], b=["celsius"])]', {})
    assert not allows(grammar, '[f(a=[1, 2], b=["kelvin"])]', {})


@pytest.mark.parametrize(("value", "may_stand"), [(True, True), (False, False)])
def test_a_pythonic_value_of_a_schema_that_is_true_or_false(value, may_stand):
    schema = {"properties": {"a": value}}
    grammar = grammar_of("pythonic", [ToolFunction(name="f", parameters=schema)])
    assert allows(grammar, "[f()]", {})
    assert allows(grammar, '[f(a={"b": 1})]', {}) is may_stand


def many_references(reference, **definition):
    properties = {f"p{n}": {"$ref": reference, "minimum": n} for n in range(1500)}
    return {"type": "object", "properties": properties, "$defs": {"x": definition}}


def test_a_schema_that_many_properties_refer_to_is_written_once():
    properties = {f"p{number}": {"$ref": "#/$defs/x"} for number in range(300)}
    schema = {"properties": properties, "$defs": {"x": {"const": "y" * 1000}}}
    grammar = grammar_of("pythonic", [ToolFunction(name="f", parameters=schema)])
    assert grammar.source.count("y" * 1000) == 1


@pytest.mark.parametrize(
    "parameters",
    [
        many_references("#/$defs/x", const="y" * 60_000),
        many_references("#/properties/p0", const="y"),
    ],
)
def test_a_pythonic_grammar_stops_at_what_a_grammar_may_have(parameters):
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError, match="more than 131072 bytes") as caught:
            grammar_of("pythonic", [ToolFunction(name="f", parameters=parameters)])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.parameter == "tools"
    assert most < 4_000_000


@pytest.mark.parametrize("family", PARSERS)
def test_no_family_writes_more_than_a_grammar_may_have(family):
    schema = {"properties": {"a": {"const": "ä" * 30_000}}}  # longer as ASCII
    with pytest.raises(ValidationError, match="more than 131072 bytes"):
        grammar_of(family, [ToolFunction(name="f", parameters=schema)])


# ── thinking first ───────────────────────────────────────────────────────────────────────

THINK = REASONING[1]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("family", PARSERS)
def test_a_model_may_think_before_it_has_to_call(family, inside, special):
    tokens = SPECIAL_IDS if special else {}
    calls = grammar_of(family, FUNCTIONS[1:2], parallel=False, special=special)
    grammar = after_reasoning(calls, THINK, begins_inside=inside, special_tokens=tokens)
    call = walk(calls, 1)
    opening = "" if inside else "<think>"
    for thought in (f"{opening}I'd call { {} } [now()]\n</think>\n\n", f"{opening}</think>"):
        assert allows(grammar, thought + call, tokens)
        assert not allows(grammar, thought + "words", tokens)
        reader = AnswerReader(
            THINK.splitter("<think>\n" if inside else "Hi"), PARSERS[family](FUNCTIONS)
        )
        read_whole = reader.push(thought + call)
        rest = reader.finish()
        assert [delta.name for delta in read_whole.calls + rest.calls if delta.name] == ["now"]
        assert read_whole.content + rest.content == ""
    assert allows(grammar, call, tokens) is not inside
