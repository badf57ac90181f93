"""TGI's `grammar` parameter: which of its forms, as the one kind of grammar that travels."""

from typing import Any, cast

from backplane_core.messages import Grammar

from backplane_server.dialects.native_types import GrammarForm
from backplane_server.errors import BodyError
from backplane_server.grammars import sources

_NAME = "grammar.value"


def grammar_of(form: GrammarForm | None) -> Grammar | None:
    """What the text must obey; whether it can be compiled is found out later.

    Raises:
        BodyError: the value is not what its type says, which TGI finds as it reads the body.
        ValidationError: a schema or an expression that cannot be taken.
    """
    if form is None:
        return None
    if form.type == "regex":
        return sources.regex(form.value, _NAME)
    if form.type == "json_schema":
        return sources.json_schema(_schema_in(form.value), f"{_NAME}.schema")
    if form.value is None:
        raise BodyError(f"`{_NAME}` must be a JSON schema", parameter=_NAME)
    return sources.json_schema(form.value, _NAME)


def _schema_in(value: Any) -> Any:
    """`{name?, schema}`, as OpenAI's `response_format` has it too."""
    holder = cast("dict[str, Any]", value if isinstance(value, dict) else {})
    if holder.get("schema") is None:
        raise BodyError(f"`{_NAME}` must be an object with a `schema`", parameter=f"{_NAME}.schema")
    return holder["schema"]
