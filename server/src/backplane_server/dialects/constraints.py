"""What a request says its text must obey, in the several ways that clients have, as one grammar.

Whether a model can follow the grammar, and at what cost, is checked where requests are checked.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from backplane_core.errors import ValidationError
from backplane_core.messages import Grammar

from backplane_server.dialects.openai_types import SamplingFields, StructuredOutputs
from backplane_server.errors import BodyError
from backplane_server.grammars import sources

_FORMATS: Final = "text, json_object, json_schema, json and regex"
# Parameters that hold a grammar in the client's own notation.
CLIENT_GRAMMARS: Final = frozenset({"guided_grammar", "structured_outputs.grammar"})
_ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}


def constraint_of(fields: SamplingFields) -> tuple[str, Grammar] | None:
    """The parameter that constrains the text, and its grammar.

    Raises:
        ValidationError: there are two, or one that cannot be read.
    """
    found = list(_constraints(fields))
    if len(found) > 1:
        names = [name for name, _ in found]
        raise ValidationError(
            f"`{names[1]}` and `{names[0]}` both say what the text must obey; send one",
            parameter=names[1],
        )
    return found[0] if found else None


def _constraints(fields: SamplingFields) -> Iterator[tuple[str, Grammar]]:
    if fields.response_format is not None:
        grammar = _of_response_format(fields.response_format)
        if grammar is not None:
            yield "response_format", grammar
    asked = fields.structured_outputs or StructuredOutputs()
    values: dict[str, tuple[Any, Callable[[Any, str], Grammar]]] = {
        "guided_json": (fields.guided_json, sources.json_schema),
        "guided_regex": (fields.guided_regex, sources.regex),
        "guided_choice": (fields.guided_choice, sources.choice),
        "guided_grammar": (fields.guided_grammar, sources.grammar),
        "structured_outputs.json": (asked.json, sources.json_schema),
        "structured_outputs.json_object": (
            _ANY_OBJECT if asked.json_object else None,
            sources.json_schema,
        ),
        "structured_outputs.regex": (asked.regex, sources.regex),
        "structured_outputs.choice": (asked.choice, sources.choice),
        "structured_outputs.grammar": (asked.grammar, sources.grammar),
    }
    for name, (value, make) in values.items():
        if value is not None:
            yield name, make(value, name)


def _of_response_format(asked: Any) -> Grammar | None:
    """OpenAI's form, and TGI's, which has a `value`."""
    kind = _object(asked, "response_format").get("type")
    value = asked.get("value")
    if kind == "text":
        return None
    if kind == "json_object" and value is None:
        return sources.json_object()
    if kind in {"json", "json_object"}:
        return sources.json_schema(value, "response_format.value")
    if kind == "json_schema":
        name = "json_schema" if asked.get("json_schema") is not None or value is None else "value"
        path = f"response_format.{name}"
        holder = _object(asked.get(name), path)
        return sources.json_schema(holder.get("schema"), f"{path}.schema")
    if kind == "regex":
        return sources.regex(value, "response_format.value")
    raise BodyError(  # a shape that TGI refuses while it reads the body
        f"`response_format.type` must be one of {_FORMATS}", parameter="response_format.type"
    )


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BodyError(f"`{name}` must be an object", parameter=name)
    return cast("dict[str, Any]", value)
