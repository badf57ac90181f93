"""The keyword arguments of a Python call, as a grammar made from a function's JSON schema."""

import keyword
from collections.abc import Mapping
from typing import Any, Final

from backplane_core.errors import ToolError
from backplane_core.tool_parsers import ToolFunction

from backplane_server.tools.arguments_schema import arguments_schema
from backplane_server.tools.json_values import as_list, as_object
from backplane_server.tools.lark import CallGrammar, quoted
from backplane_server.tools.property_values import PropertyValues

_NOTHING: Final = '""'


def keyword_arguments(grammar: CallGrammar, prefix: str, function: ToolFunction) -> str:
    """A rule for all arguments of a call, in the schema's order; those not required may lack.

    Args:
        grammar: takes the rules.
        prefix: what their names begin with.
        function: its schema has to list `properties` whose names Python takes.

    Raises:
        ToolError: it has not; the function can still be offered, but not enforced.
        ValidationError: the grammar gets too long.
    """
    schema = arguments_schema(function)
    properties = as_object(schema.get("properties")) or {}
    required = {str(name) for name in as_list(schema.get("required")) or []}
    _check(function, schema, properties, required)
    values = PropertyValues(grammar, prefix, schema)
    # What is false cannot be given, and a grammar that nothing matches is none.
    names = [name for name in properties if properties[name] is not False or name in required]
    # `rest_n`: arguments from number n on, behind another; `first_n`: with none before them.
    rest = first = _NOTHING
    for number in reversed(range(len(names))):
        name = names[number]
        optional = name not in required
        value = grammar.rule(
            f"{prefix}_value_{number}",
            f"{quoted(name + '=')} {values.value(name, properties[name])}",
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
