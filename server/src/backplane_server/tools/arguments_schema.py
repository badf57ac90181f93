"""The JSON schema that the arguments of an enforced call obey, made from a function's own."""

from collections.abc import Mapping
from typing import Any, Final

from backplane_core.tool_parsers import ToolFunction

from backplane_server.grammars.closing import close
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
_TAKES_NOTHING: Final[dict[str, Any]] = {"type": "object", "properties": {}}
_DATA: Final = ("enum", "const", "required", "type", "dependentRequired")


def arguments_schema(function: ToolFunction) -> dict[str, Any]:
    """The schema of a function's arguments: an object, of nothing that is not declared.

    A function that declares nothing takes none. Beyond that, `grammars.closing` has the rule.
    """
    schema: dict[str, Any] = {**without_words(function.parameters), "type": "object"}
    if not function.parameters or schema == _TAKES_NOTHING:
        return {**_TAKES_NOTHING, "additionalProperties": False}
    close(schema)
    return schema


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
