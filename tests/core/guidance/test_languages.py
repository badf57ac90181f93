"""Whatever path of allowed tokens is taken, the text matches, and it comes to an end."""

import json
import random
import re
import threading

import pytest
from backplane_core.guidance.engine import GuidanceEngine
from backplane_core.messages import Grammar
from backplane_core.sampling import StoppingParams
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.guidance.vocabularies import byte_level, ids_of, sentencepiece

VOCABULARIES = [byte_level(), sentencepiece()]
MAX_TOKENS = 2000


@pytest.fixture(scope="module", params=[0, 1], ids=["byte-level", "sentencepiece"])
def follow(request):
    """Follow a grammar by random tokens to its end; the text."""
    vocabulary = VOCABULARIES[request.param]
    engine = GuidanceEngine(vocabulary)

    def walk(grammar, seed):
        ready = threading.Event()
        guide = engine.guide(grammar, StoppingParams(max_new_tokens=MAX_TOKENS), ready.set)
        assert ready.wait(60)
        assert guide.error is None, guide.error
        choose = random.Random(seed)  # noqa: S311 -- a walk, no secret
        text = b""
        for _ in range(MAX_TOKENS):
            allowed = ids_of(guide.allowed())
            assert allowed, text
            token_id = choose.choice(allowed)
            if token_id in vocabulary.eos_token_ids:
                return text.decode()
            text += vocabulary.tokens[token_id]
            guide.advance([token_id])
        raise AssertionError(f"no end after {MAX_TOKENS} tokens: {text[:200]!r}")

    yield walk
    engine.close()


LITERALS = st.sampled_from(["a", "b", "ab", "name", "12", "é", "日", " ", '"', r"\.", r"\{"])
CLASSES = st.sampled_from(["[a-c]", "[^a]", r"\d", r"[\p{L}]", "[ab12]", "."])


def _deeper(inner):
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        inner.map(lambda part: f"(?:{part})?"),
        st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
            lambda made: f"(?:{made[0]}){{{made[1]},{made[1] + made[2]}}}"
        ),
    )


REGEXES = st.recursive(st.one_of(LITERALS, CLASSES), _deeper, max_leaves=8)


@settings(max_examples=60, deadline=None)
@given(source=REGEXES, seed=st.integers(0, 1000))
def test_texts_match_their_regular_expression(follow, source, seed):
    text = follow(Grammar(kind="regex", source=source), seed)
    in_python = source.replace(r"[\p{L}]", r"[^\W\d_]")
    # Python's \w and Unicode's letters differ by marks and numbers that are letters in name.
    if r"\p" not in source:
        assert re.fullmatch(in_python, text), (source, text)
    else:
        assert len(text) <= 4**8


def _object_of(inner):
    return st.dictionaries(st.sampled_from(["name", "a", "b c", 'q"', "é"]), inner, max_size=3)


def _objects(inner):
    def schema(made):
        properties, required = made
        return {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name in required],
            "additionalProperties": False,
        }

    names = st.sets(st.sampled_from(["name", "a", "b c", 'q"', "é"]))
    return st.tuples(_object_of(inner), names).map(schema)


LEAVES = st.one_of(
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 2),
        st.integers(0, 4),
    ),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-200, 50),
        st.integers(0, 300),
    ),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.lists(st.sampled_from(["x", "name", 'a "b"', 3, True, None]), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        _objects(inner),
        st.tuples(inner, st.integers(0, 1), st.integers(0, 2)).map(
            lambda made: {
                "type": "array",
                "items": made[0],
                "minItems": made[1],
                "maxItems": made[1] + made[2],
            }
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda schemas: {"anyOf": schemas}),
    ),
    max_leaves=6,
)


def is_valid(value, schema) -> bool:  # noqa: PLR0911 -- one for each kind of schema
    """JSON Schema's rules, as far as the schemas above go."""
    if "anyOf" in schema:
        return any(is_valid(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return any(type(value) is type(one) and value == one for one in schema["enum"])
    match schema["type"]:
        case "string":
            return (
                isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]
            )
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            return (
                isinstance(value, list)
                and schema["minItems"] <= len(value) <= schema["maxItems"]
                and all(is_valid(item, schema["items"]) for item in value)
            )
        case _:
            return (
                isinstance(value, dict)
                and set(schema["required"]) <= set(value) <= set(schema["properties"])
                and all(is_valid(item, schema["properties"][name]) for name, item in value.items())
            )


@settings(max_examples=80, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_texts_are_json_that_their_schema_describes(follow, schema, seed):
    text = follow(Grammar(kind="json_schema", source=json.dumps(schema)), seed)
    assert is_valid(json.loads(text), schema), (schema, text)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_texts_match_their_grammar(follow, seed):
    source = 'start: "[" item ("," item){0,3} "]"\nitem: /[0-9]{1,2}/ | "[" item? "]"\n'
    text = follow(Grammar(kind="lark", source=source), seed)
    depth = 0
    for char in text:
        depth += {"[": 1, "]": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0
    assert re.fullmatch(r"[\[\]0-9,]+", text)


def test_blanks_between_json_tokens_are_few(follow):
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}
    for seed in range(40):
        text = follow(Grammar(kind="json_schema", source=json.dumps(schema)), seed)
        assert not re.search(r"[ \t]{22}|\n\s*\n|^\s|\s$", text), text
        assert json.loads(text)
