"""The JSON schema that the arguments of an enforced call obey, made from a function's own."""

from collections.abc import Mapping
from typing import Any, Final

from backplane_core.tool_parsers import ToolFunction

from backplane_server.tools.json_values import as_list, as_object

# What a schema says for people alone; of many functions it can be more than a grammar may hold.
_WORDS: Final = ("title", "description", "default", "examples", "$comment", "deprecated")
_NAMED_SCHEMAS: Final = (
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
)
_DATA: Final = ("enum", "const", "required", "type", "dependentRequired")
_OPEN_ENDED: Final = ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties")


def arguments_schema(function: ToolFunction) -> dict[str, Any]:
    """The schema of a function's arguments: an object, of nothing that is not declared.

    A schema that lists properties and leaves open whether there may be others is taken to mean
    none, unless it requires others or is put together from parts that may declare some.
    """
    schema: dict[str, Any] = {"properties": {}} if not function.parameters else {}
    schema |= {**without_words(function.parameters), "type": "object"}
    listed = as_object(schema.get("properties"))
    closed = (
        listed is not None
        and not any(key in schema for key in _OPEN_ENDED)
        and all(name in listed for name in as_list(schema.get("required")) or [])
    )
    return {"additionalProperties": False, **schema} if closed else schema


def without_words(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without what it says for people, at every depth; the given one stays."""
    bare: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _WORDS:
            continue
        named = as_object(value) if key in _NAMED_SCHEMAS else None
        if named is not None:
            bare[key] = {name: _bare(child) for name, child in named.items()}
        else:
            bare[key] = value if key in _DATA else _bare(value)
    return bare


def _bare(value: Any) -> Any:
    fields = as_object(value)
    if fields is not None:
        return without_words(fields)
    items = as_list(value)
    return value if items is None else [_bare(item) for item in items]
