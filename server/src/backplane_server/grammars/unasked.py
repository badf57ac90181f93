"""Keywords of JSON Schema that ask for nothing, by their value or by what stands beside them.

Generators of schemas write them out; a compiler refuses the keyword without a look at its value.
"""

from collections.abc import Callable
from typing import Any, Final, cast


def leave_out_unasked(node: dict[str, Any]) -> None:
    """Remove them from one schema, in place; what is inside of it stays as it is."""
    if _KEYWORDS.isdisjoint(node):
        return
    for key, asks_nothing in _ASK_NOTHING.items():
        if key in node and asks_nothing(node[key]):
            del node[key]
    if "then" not in node and "else" not in node:
        node.pop("if", None)
    if "if" not in node:
        _remove(node, "then", "else")
    if "contains" not in node:
        _remove(node, "minContains", "maxContains")
    elif "maxContains" not in node and _is_zero(node.get("minContains")):
        _remove(node, "contains", "minContains")


def _remove(node: dict[str, Any], *keys: str) -> None:
    for key in keys:
        node.pop(key, None)


def _is_false(value: Any) -> bool:
    return value is False


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def _takes_anything(schema: Any) -> bool:
    return schema is True or schema == {}


def _requires_nothing(value: Any) -> bool:
    """Whether each of some lists of names, or schemas, asks for nothing."""
    return isinstance(value, dict) and all(
        each == [] or _takes_anything(each) for each in cast("dict[str, Any]", value).values()
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_ASK_NOTHING: Final[dict[str, Callable[[Any], bool]]] = {
    "uniqueItems": _is_false,
    "not": _is_false,
    "then": _takes_anything,
    "else": _takes_anything,
    "propertyNames": _takes_anything,
    "unevaluatedItems": _takes_anything,
    "unevaluatedProperties": _takes_anything,
    "dependencies": _requires_nothing,
    "dependentRequired": _requires_nothing,
    "dependentSchemas": _requires_nothing,
    # Without a dynamic reference, which is refused, a place to refer to.
    "$dynamicAnchor": _is_text,
    "$recursiveAnchor": _is_false,
}
_KEYWORDS: Final = frozenset({*_ASK_NOTHING, "if", "contains", "minContains", "maxContains"})
