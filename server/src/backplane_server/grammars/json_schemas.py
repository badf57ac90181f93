"""A client's JSON schema before it is compiled: what it may refer to, how deep, and what it means.

Walks the places where schemas stand, and no others: a property may be called "$ref".
"""

import re
from collections.abc import Iterator
from typing import Any, Final, cast

from backplane_core.errors import ValidationError

from backplane_server.grammars.closing import close
from backplane_server.grammars.places import Place
from backplane_server.grammars.unasked import leave_out_unasked

MAX_DEPTH: Final = 48

_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTED: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE: Final = (
    *("items", "additionalItems", "additionalProperties", "unevaluatedItems"),
    *("unevaluatedProperties", "not", "if", "then", "else", "contains", "propertyNames"),
)
# Where one of these stands, it says what `properties` are of.
_SAYS_MORE: Final = ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const")
# Only a number of so many digits can be beyond what a double holds.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{309}")
_TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")


def prepared(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema, changed in place, as it is meant.

    `properties` without a `type` make it a schema of objects, and objects whose properties are
    listed have no others unless it says so (`closing`); what names the schema itself is left out,
    and so are keywords that ask for nothing.

    Raises:
        ValidationError: it nests too deep, refers elsewhere, or is malformed; names the place.
    """
    for key in ("$schema", "$id"):
        schema.pop(key, None)
    _prepare(schema, name, name, depth=1)
    close(schema)
    return schema


def refuse_huge_numbers(schema: dict[str, Any], encoded: bytes, name: str) -> None:
    """Refuse what compilers cannot read: numbers that no double holds.

    Args:
        schema: decoded.
        encoded: the same as JSON.
        name: the parameter.

    Raises:
        ValidationError: there is one; names the place.
    """
    if _LONG_NUMBER.search(encoded) is None:
        return
    waiting: list[tuple[Any, Place | str]] = [(schema, name)]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            waiting += ((child, Place(place, key)) for key, child in fields.items())
        elif isinstance(value, list):
            items = cast("list[Any]", value)
            waiting += ((child, Place(place, index)) for index, child in enumerate(items))
        elif isinstance(value, int) and not _is_double(value):
            raise ValidationError(
                f"`{place}` is a number that is too large: at most 1.79e308 is taken",
                parameter=name,
            )


def _is_double(number: int) -> bool:
    try:
        float(number)
    except OverflowError:
        return False
    return True


def _prepare(node: Any, place: Place | str, name: str, *, depth: int) -> None:
    if isinstance(node, bool):
        return
    if not isinstance(node, dict):
        raise ValidationError(f"`{place}` must be a JSON schema", parameter=name)
    if depth > MAX_DEPTH:
        raise ValidationError(
            f"`{name}` nests its schemas more than {MAX_DEPTH} deep", parameter=name
        )
    node = cast("dict[str, Any]", node)
    leave_out_unasked(node)
    _check(node, place, name)
    if "properties" in node and not any(key in node for key in _SAYS_MORE):
        node["type"] = "object"
    for child, child_place in _children(node, place, name):
        _prepare(child, child_place, name, depth=depth + 1)


def _check(node: dict[str, Any], place: Place | str, name: str) -> None:
    reference = node.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise ValidationError(
            f"`{place}.$ref` must refer to a place in the same schema", parameter=name
        )
    types = node.get("type", [])
    types = [types] if isinstance(types, str) else types
    if not isinstance(types, list) or any(each not in _TYPES for each in cast("list[Any]", types)):
        raise ValidationError(
            f"`{place}.type` must be of {', '.join(_TYPES)}, or a list of these", parameter=name
        )


def _children(node: dict[str, Any], place: Place | str, name: str) -> Iterator[tuple[Any, Place]]:
    for key, value in node.items():
        if key in _NAMED:
            if not isinstance(value, dict):
                raise ValidationError(f"`{place}.{key}` must be an object", parameter=name)
            below = Place(place, key)
            for each, child in cast("dict[str, Any]", value).items():
                yield child, Place(below, each)
        elif key in _LISTED:
            if not isinstance(value, list):
                raise ValidationError(f"`{place}.{key}` must be a list", parameter=name)
            yield from _numbered(cast("list[Any]", value), Place(place, key))
        elif key == "items" and isinstance(value, list):  # the older form of prefixItems
            yield from _numbered(cast("list[Any]", value), Place(place, key))
        elif key in _SINGLE:
            yield value, Place(place, key)


def _numbered(schemas: list[Any], place: Place) -> Iterator[tuple[Any, Place]]:
    for index, child in enumerate(schemas):
        yield child, Place(place, index)
