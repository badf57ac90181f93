"""The keyword arguments of a Python call, as a grammar made from a function's JSON schema."""

import keyword
from collections.abc import Mapping
from typing import Any, Final

from backplane_core.errors import ToolError
from backplane_core.tool_parsers import ToolFunction

from backplane_server.tools.arguments_schema import arguments_schema
from backplane_server.tools.json_values import as_list, as_object
from backplane_server.tools.lark import CallGrammar, embedded, quoted

_NOTHING: Final = '""'
_WORDS: Final[dict[str, str]] = {
    "boolean": '("True" | "False")',
    "null": '"None"',
}


def keyword_arguments(grammar: CallGrammar, prefix: str, function: ToolFunction) -> str:
    """A rule for all arguments of a call, in the schema's order; those not required may lack.

    Args:
        grammar: takes the rules.
        prefix: what their names begin with.
        function: its schema has to list `properties` whose names Python takes.

    Raises:
        ToolError: it has not; the function can still be offered, but not enforced.
    """
    schema = arguments_schema(function)
    properties = as_object(schema.get("properties")) or {}
    required = {str(name) for name in as_list(schema.get("required")) or []}
    _check(function, schema, properties, required)
    names = list(properties)
    # `rest_n`: arguments from number n on, behind another; `first_n`: with none before them.
    rest = first = _NOTHING
    for number in reversed(range(len(names))):
        name = names[number]
        optional = name not in required
        value = grammar.rule(
            f"{prefix}_value_{number}",
            f"{quoted(name + '=')} {_value(schema, name, properties[name])}",
        )
        first_body = f"{value} {rest}" + (f" | {first}" if optional else "")
        rest_body = f"{quoted(', ')} {value} {rest}" + (f" | {rest}" if optional else "")
        first = grammar.rule(f"{prefix}_first_{number}", first_body)
        rest = grammar.rule(f"{prefix}_rest_{number}", rest_body)
    return first


def _check(
    function: ToolFunction,
    schema: Mapping[str, Any],
    properties: Mapping[str, Any],
    required: set[str],
) -> None:
    unfit = next(
        (name for name in properties if not name.isascii() or not name.isidentifier()), None
    ) or next((name for name in properties if keyword.iskeyword(name)), None)
    if unfit is not None:
        raise ToolError(
            f"the function {function.name} cannot be enforced in the pythonic format: Python has "
            f"no argument called {unfit[:64]!r}",
            parameter="tool_choice",
        )
    combined = any(key in schema for key in ("$ref", "allOf", "anyOf", "oneOf", "if"))
    if combined or required - properties.keys():
        raise ToolError(
            f"the function {function.name} cannot be enforced in the pythonic format: its schema "
            "does not simply list all its properties",
            parameter="tool_choice",
        )


def _value(schema: Mapping[str, Any], name: str, value: Any) -> str:
    """A value that obeys a property's schema, as JSON, where it is not one of Python's words."""
    fields = as_object(value)
    if fields is not None and set(fields) == {"type"}:
        word = _WORDS.get(str(fields["type"]))
        if word is not None:
            return word
    if fields is not None and not _has_references(fields):
        return embedded(fields)
    pointer = name.replace("~", "~0").replace("/", "~1")
    # References inside start at the whole schema's root, so all of it moves below a new one.
    return embedded(
        {
            "$ref": f"#/$defs/arguments/properties/{pointer}",
            "$defs": {"arguments": _moved(dict(schema))},
        }
    )


def _has_references(value: Any) -> bool:
    fields = as_object(value)
    if fields is not None:
        return "$ref" in fields or any(map(_has_references, fields.values()))
    return any(map(_has_references, as_list(value) or []))


def _moved(value: Any) -> Any:
    fields = as_object(value)
    if fields is not None:
        return {
            key: f"#/$defs/arguments{child[1:]}"
            if key == "$ref" and isinstance(child, str) and child.startswith("#")
            else _moved(child)
            for key, child in fields.items()
        }
    items = as_list(value)
    return value if items is None else [_moved(item) for item in items]
