"""A client's JSON schema before it is compiled: what it may refer to, how deep, and what it means.

Walks the places where schemas stand, and no others: a property may be called "$ref".
"""

from collections.abc import Iterator
from typing import Any, Final, cast

from backplane_core.errors import ValidationError

MAX_DEPTH: Final = 48

_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTED: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE: Final = (
    *("items", "additionalItems", "additionalProperties", "unevaluatedItems"),
    *("unevaluatedProperties", "not", "if", "then", "else", "contains", "propertyNames"),
)
# Where one of these stands, it says what `properties` are of.
_SAYS_MORE: Final = ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const")
_TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")


def prepared(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema, changed in place, as it is meant.

    `properties` without a `type` make it a schema of objects, and what names the schema itself
    is left out.

    Raises:
        ValidationError: it nests too deep, refers elsewhere, or is malformed; names the place.
    """
    for key in ("$schema", "$id"):
        schema.pop(key, None)
    waiting: list[tuple[Any, str, int]] = [(schema, name, 1)]
    while waiting:
        node, path, depth = waiting.pop()
        if isinstance(node, bool):
            continue
        if not isinstance(node, dict):
            raise ValidationError(f"`{path}` must be a JSON schema", parameter=name)
        if depth > MAX_DEPTH:
            raise ValidationError(
                f"`{name}` nests its schemas more than {MAX_DEPTH} deep", parameter=name
            )
        node = cast("dict[str, Any]", node)
        _check(node, path, name)
        if "properties" in node and not any(key in node for key in _SAYS_MORE):
            node["type"] = "object"
        waiting += ((child, place, depth + 1) for child, place in _children(node, path, name))
    return schema


def _check(node: dict[str, Any], path: str, name: str) -> None:
    reference = node.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise ValidationError(
            f"`{path}.$ref` must refer to a place in the same schema", parameter=name
        )
    types = node.get("type", [])
    types = [types] if isinstance(types, str) else types
    if not isinstance(types, list) or any(each not in _TYPES for each in cast("list[Any]", types)):
        raise ValidationError(
            f"`{path}.type` must be of {', '.join(_TYPES)}, or a list of these", parameter=name
        )


def _children(node: dict[str, Any], path: str, name: str) -> Iterator[tuple[Any, str]]:
    for key in _NAMED:
        schemas = node.get(key, {})
        if not isinstance(schemas, dict):
            raise ValidationError(f"`{path}.{key}` must be an object", parameter=name)
        for each, child in cast("dict[str, Any]", schemas).items():
            yield child, f"{path}.{key}.{each}"
    for key in _LISTED:
        schemas = node.get(key, [])
        if not isinstance(schemas, list):
            raise ValidationError(f"`{path}.{key}` must be a list", parameter=name)
        yield from _numbered(cast("list[Any]", schemas), f"{path}.{key}")
    for key in _SINGLE:
        child = node.get(key, True)
        if key == "items" and isinstance(child, list):  # the older form of prefixItems
            yield from _numbered(cast("list[Any]", child), f"{path}.{key}")
        else:
            yield child, f"{path}.{key}"


def _numbered(schemas: list[Any], path: str) -> Iterator[tuple[Any, str]]:
    for index, child in enumerate(schemas):
        yield child, f"{path}[{index}]"
