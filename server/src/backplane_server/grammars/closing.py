"""Objects whose properties a schema lists have no others, unless it says otherwise.

As in TGI and other servers: JSON Schema itself would let a model go on with properties of its own.
What is written still obeys the schema as it was sent.
"""

from collections.abc import Iterator
from typing import Any, Final, cast

# Schemas that hold together: what one of them does not list another may.
_HOLD_TOGETHER: Final = frozenset({"allOf", "if", "not", "dependentSchemas"})
_ALTERNATIVES: Final = frozenset({"anyOf", "oneOf"})
_NAMED: Final = frozenset({"properties", "$defs", "definitions"})
_LISTED: Final = frozenset({"prefixItems", "items"}) | _ALTERNATIVES
_SINGLE: Final = frozenset({"items", "additionalProperties"})
_SAYS_OF_OTHERS: Final = frozenset(
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames"}
)


def close(schema: dict[str, Any]) -> None:
    """Say of each object in a schema, in place, that it has no properties but those listed.

    A schema that puts objects together from parts (`allOf`, `if`, `properties` beside `$ref` or
    `anyOf`) stays open altogether, and so does an object that requires what it does not list.
    """
    nodes = list(_nodes(schema))
    if any(_puts_together(node) for node in nodes):
        return
    for node in nodes:
        if _lists_all(node):
            node["additionalProperties"] = False


def _puts_together(node: dict[str, Any]) -> bool:
    if _HOLD_TOGETHER & node.keys():
        return True
    return "properties" in node and bool(({"$ref"} | _ALTERNATIVES) & node.keys())


def _lists_all(node: dict[str, Any]) -> bool:
    listed = node.get("properties")
    if not isinstance(listed, dict) or not listed or _SAYS_OF_OTHERS & node.keys():
        return False
    required = node.get("required", [])
    return isinstance(required, list) and all(
        name in cast("dict[str, Any]", listed) for name in cast("list[Any]", required)
    )


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        yield node
        for key, value in node.items():
            waiting += _schemas(key, value)


def _schemas(key: str, value: Any) -> list[dict[str, Any]]:
    """The schemas right below a keyword."""
    found: list[Any] = []
    if key in _NAMED and isinstance(value, dict):
        found = list(cast("dict[str, Any]", value).values())
    elif key in _LISTED and isinstance(value, list):
        found = cast("list[Any]", value)
    elif key in _SINGLE:
        found = [value]
    return [cast("dict[str, Any]", each) for each in found if isinstance(each, dict)]
