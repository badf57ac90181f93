"""The value of one property of a schema, as a piece of a grammar that stands on its own."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from backplane_server.tools.json_values import as_list, as_object
from backplane_server.tools.lark import CallGrammar, embedded

_WORDS: Final[dict[str, str]] = {
    "boolean": '("True" | "False")',
    "null": '"None"',
}
_SECTIONS: Final = ("$defs", "definitions")


class PropertyValues:
    """Takes a schema apart: what a property refers to comes along, and nothing else.

    Args:
        grammar: takes the rules.
        prefix: what their names begin with.
        schema: the one whose properties they are.
    """

    def __init__(self, grammar: CallGrammar, prefix: str, schema: Mapping[str, Any]) -> None:
        self._grammar = grammar
        self._prefix = prefix
        self._schema = schema
        self._rules: dict[str, str] = {}  # by the schema, as JSON

    def value(self, name: str, value: Any) -> str:
        """What obeys a property's schema, as JSON, where it is not one of Python's words.

        Raises:
            ValidationError: the grammar gets too long.
        """
        fields = as_object(value)
        if fields is None:  # true or false, which cannot stand alone
            return embedded({"$ref": "#/$defs/value", "$defs": {"value": value}})
        if set(fields) == {"type"}:
            word = _WORDS.get(str(fields["type"]))
            if word is not None:
                return word
        if next(_references(fields), None) is None:
            return embedded(fields)
        key = json.dumps(fields)
        rule = self._rules.get(key)
        if rule is None:  # written once for all that have this schema
            rule = self._grammar.rule(
                f"{self._prefix}_schema_{len(self._rules)}",
                embedded(self._with_definitions(name, fields)),
            )
            self._rules[key] = rule
        return rule

    def _with_definitions(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        definitions = _definitions(self._schema, fields)
        if definitions is not None:
            return {**fields, **definitions}
        # It refers to other places of the whole schema, so all of it moves below a new root.
        return {
            "$ref": f"#/$defs/arguments/properties/{_escaped(name)}",
            "$defs": {"arguments": _moved(dict(self._schema))},
        }


def _definitions(
    schema: Mapping[str, Any], fields: dict[str, Any]
) -> dict[str, dict[str, Any]] | None:
    """The definitions that can be reached, by their sections; None if other places can be."""
    found: dict[str, dict[str, Any]] = {}
    waiting: list[Any] = [fields]
    while waiting:
        for reference in _references(waiting.pop()):
            root, _, rest = reference.partition("/")
            section, _, rest = rest.partition("/")
            name = _unescaped(rest.partition("/")[0])
            definitions = as_object(schema.get(section)) if section in _SECTIONS else None
            if root != "#" or definitions is None or name not in definitions:
                return None
            if name not in found.setdefault(section, {}):
                found[section][name] = definitions[name]
                waiting.append(definitions[name])
    return found


def _references(value: Any) -> Iterator[str]:
    waiting: list[Any] = [value]
    while waiting:
        each = waiting.pop()
        fields = as_object(each)
        if fields is not None:
            reference = fields.get("$ref")
            if isinstance(reference, str):
                yield reference
            waiting += fields.values()
        else:
            waiting += as_list(each) or []


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


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")
