"""The functions that a request offers, read from its JSON and checked, field by field."""

import re
from typing import Any, Final

from backplane_core.tool_parsers import ToolFunction

from backplane_server.tools.json_values import as_list, as_object, refuse

MAX_TOOLS: Final = 1024
_MAX_DEPTH: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NO_PARAMETERS: Final[dict[str, Any]] = {"type": "object", "properties": {}}


def read_tools(tools: Any) -> list[ToolFunction]:
    """OpenAI's `tools`; null and an empty list are none.

    Raises:
        ValidationError: naming the field.
    """
    return _read_list(tools, "tools", nested=True)


def read_functions(functions: Any) -> list[ToolFunction]:
    """OpenAI's older `functions`: the same without the wrapping.

    Raises:
        ValidationError: naming the field.
    """
    return _read_list(functions, "functions", nested=False)


def _read_list(values: Any, field: str, *, nested: bool) -> list[ToolFunction]:
    if values is None:
        return []
    items = as_list(values)
    if items is None:
        refuse(field, "has to be a list")
    if len(items) > MAX_TOOLS:
        refuse(field, f"has {len(items)} entries, more than {MAX_TOOLS}")
    functions: list[ToolFunction] = []
    names: set[str] = set()
    for number, item in enumerate(items):
        where = f"{field}[{number}]"
        function = _function(
            _unwrapped(item, where) if nested else item, f"{where}.function" if nested else where
        )
        if function.name in names:
            name_field = f"{where}.function.name" if nested else f"{where}.name"
            refuse(name_field, f"is {function.name!r}, as another's is")
        names.add(function.name)
        functions.append(function)
    return functions


def _unwrapped(value: Any, where: str) -> Any:
    tool = as_object(value)
    if tool is None:
        refuse(where, "has to be an object")
    if tool.get("type", "function") != "function":
        refuse(f"{where}.type", f"is {str(tool['type'])[:40]!r}; only 'function' is known")
    if "function" not in tool:
        refuse(f"{where}.function", "is missing")
    return tool["function"]


def _function(value: Any, where: str) -> ToolFunction:
    fields = as_object(value)
    if fields is None:
        refuse(where, "has to be an object")
    name = fields.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        refuse(f"{where}.name", "has to be 1 to 64 letters, digits, '_' or '-'")
    description = fields.get("description")
    if not (description is None or isinstance(description, str)):
        refuse(f"{where}.description", "has to be text")
    key = (
        "arguments" if fields.get("parameters") is None and "arguments" in fields else "parameters"
    )
    return ToolFunction(
        name=name,
        description=description,
        parameters=_parameters(fields.get(key), f"{where}.{key}"),
    )


def _parameters(value: Any, where: str) -> dict[str, Any]:
    if value is None or value == {}:
        return _NO_PARAMETERS
    schema = as_object(value)
    if schema is None:
        refuse(where, "has to be a JSON schema, as an object")
    if schema.get("type", "object") != "object":
        refuse(f"{where}.type", "has to be 'object', for arguments are one")
    if as_object(schema.get("properties", {})) is None:
        refuse(f"{where}.properties", "has to be an object")
    if _is_deep(schema):
        refuse(where, f"is nested deeper than {_MAX_DEPTH} levels")
    return schema


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    fields = as_object(value)
    return list(fields.values()) if fields is not None else as_list(value) or []
