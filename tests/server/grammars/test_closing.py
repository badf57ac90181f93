"""Which objects have no properties but those a schema lists."""

from copy import deepcopy

import pytest
from backplane_server.grammars.closing import close

LISTED = {"type": "object", "properties": {"a": {"type": "integer"}}}
CLOSED = {**LISTED, "additionalProperties": False}


def closed(schema):
    schema = deepcopy(schema)
    close(schema)
    return schema


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (LISTED, CLOSED),
        ({"type": "array", "items": LISTED}, {"type": "array", "items": CLOSED}),
        ({"anyOf": [LISTED, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        (
            {"properties": {"b": LISTED}},
            {"properties": {"b": CLOSED}, "additionalProperties": False},
        ),
        ({"additionalProperties": LISTED}, {"additionalProperties": CLOSED}),
        (
            {"$ref": "#/$defs/d", "$defs": {"d": LISTED}},
            {"$ref": "#/$defs/d", "$defs": {"d": CLOSED}},
        ),
    ],
)
def test_what_lists_its_properties_has_no_others(schema, expected):
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        {**LISTED, "additionalProperties": True},
        {**LISTED, "patternProperties": {"^x": {}}},
        {**LISTED, "required": ["b"]},
        {"allOf": [LISTED, {"properties": {"b": {}}}]},
        {**LISTED, "$ref": "#/$defs/d", "$defs": {"d": {"properties": {"b": {}}}}},
        {**LISTED, "anyOf": [{"properties": {"b": {}}}, {"properties": {"c": {}}}]},
        {**LISTED, "if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}},
        {"enum": [{"properties": {"a": 1}}]},
    ],
)
def test_what_is_open_on_purpose_or_put_together_stays_open(schema):
    assert closed(schema) == schema
