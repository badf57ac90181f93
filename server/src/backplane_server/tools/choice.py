"""`tool_choice` in all its forms, read from JSON."""

from dataclasses import dataclass
from typing import Any, Final

from backplane_server.tools.json_values import as_list, as_object, refuse

_FIELD: Final = "tool_choice"
_OLDER_FIELD: Final = "function_call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a request chooses.

    Attributes:
        none: no function may be called.
        required: one has to be.
        named: it is the one in `names`.
        names: those that may be called; empty is all.
    """

    none: bool = False
    required: bool = False
    named: bool = False
    names: tuple[str, ...] = ()


_MODES: Final = {
    "auto": Choice(),
    "none": Choice(none=True),
    "required": Choice(required=True),
    "any": Choice(required=True),
}


def read_choice(value: Any) -> Choice:
    """`tool_choice`: a mode, a function's name as TGI takes it, or an object.

    Objects are OpenAI's {"type": "function", "function": {"name": …}}, TGI's, which may lack the
    type, Responses' flat {"type": "function", "name": …}, and OpenAI's "allowed_tools".

    Raises:
        ValidationError: none of these.
    """
    if value is None:
        return _MODES["auto"]
    if isinstance(value, str) and value:
        return _MODES.get(value) or _named(value)
    fields = as_object(value)
    if fields is None:
        refuse(_FIELD, "has to be 'auto', 'none', 'required', a function's name or an object")
    kind = fields.get("type", "function")
    if kind == "allowed_tools":
        return _allowed_tools(fields.get("allowed_tools", fields))
    if kind != "function":
        if isinstance(kind, str) and kind in _MODES:
            return _MODES[kind]
        refuse(f"{_FIELD}.type", f"is {str(kind)[:40]!r}; 'function' and 'allowed_tools' are known")
    return _named(_name(fields, _FIELD))


def read_older_choice(value: Any) -> Choice:
    """`function_call`: "auto", "none" or {"name": …}.

    Raises:
        ValidationError: none of these.
    """
    if value is None or value == "auto":
        return _MODES["auto"]
    if value == "none":
        return _MODES["none"]
    fields = as_object(value)
    if fields is None:
        refuse(_OLDER_FIELD, "has to be 'auto', 'none' or {\"name\": …}")
    return _named(_name(fields, _OLDER_FIELD))


def _named(name: str) -> Choice:
    return Choice(required=True, named=True, names=(name,))


def _name(fields: dict[str, Any], where: str) -> str:
    name = fields.get("function", fields)
    function = as_object(name)
    if function is not None:
        where = f"{where}.function" if "function" in fields else where
        name = function.get("name")
    if not isinstance(name, str) or not name:
        refuse(f"{where}.name", "has to be a function's name")
    return name


def _allowed_tools(value: Any) -> Choice:
    field = f"{_FIELD}.allowed_tools"
    allowed = as_object(value)
    if allowed is None:
        refuse(field, "has to be an object")
    mode = allowed.get("mode", "auto")
    if mode not in ("auto", "required"):
        refuse(f"{field}.mode", "has to be 'auto' or 'required'")
    tools = as_list(allowed.get("tools"))
    if not tools:
        refuse(f"{field}.tools", "has to be a list of tools")
    names: list[str] = []
    for number, entry in enumerate(tools):
        where = f"{field}.tools[{number}]"
        tool = as_object(entry)
        if tool is None:
            refuse(where, "has to be an object")
        names.append(_name(tool, where))
    return Choice(required=mode == "required", names=tuple(dict.fromkeys(names)))
