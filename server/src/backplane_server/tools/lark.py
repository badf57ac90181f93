"""Grammars of answers that are nothing but calls, in llguidance's dialect of Lark."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backplane_core.errors import ValidationError
from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ToolFunction

from backplane_server.grammars.sources import MAX_SOURCE_BYTES
from backplane_server.tools.arguments_schema import arguments_schema

# A model that is made to call may call one function after another without end.
MAX_CALLS: Final = 64
# As `json.dumps` spaces, and so every template known: no room for endless white space.
_SPACING: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
LINE_BREAK: Final = '"\\n"?'  # one may stand here
_SCALARS: Final = ("string", "integer", "number")


class CallGrammar:
    """Writes one grammar, rule by rule, and no more of it than a grammar may have."""

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        self._special_tokens = special_tokens
        self._rules: list[str] = []
        self._num_bytes = 0

    def mark(self, literal: str) -> str:
        """A mark as the vocabulary has it: a special token by its id, or plain text."""
        token_id = self._special_tokens.get(literal)
        return quoted(literal) if token_id is None else f"<[{token_id}]>"

    def rule(self, name: str, body: str) -> str:
        """Add a rule; its name.

        Raises:
            ValidationError: the grammar is too long with it.
        """
        self._rules.append(f"{name}: {body}")
        self._num_bytes += len(self._rules[-1].encode())
        if self._num_bytes > MAX_SOURCE_BYTES:
            raise ValidationError(
                "the grammar of calls to the functions that may be called has more than "
                f"{MAX_SOURCE_BYTES} bytes, which is the most that is taken",
                parameter="tools",
                remedy="allow fewer functions, give them simpler schemas, or send `tool_choice` "
                "auto",
            )
        return name

    def alternatives(self, name: str, bodies: Sequence[str]) -> str:
        """Add a rule for each body and one that is any of them; the latter's name."""
        rules = [self.rule(f"{name}_{number}", body) for number, body in enumerate(bodies)]
        return self.rule(name, " | ".join(rules))

    def json_calls(self, functions: Sequence[ToolFunction], *, arguments: str) -> str:
        """A rule for a call as one JSON object; `arguments` is the key they stand under."""
        heads = ('{"name": "' + function.name + f'", "{arguments}": ' for function in functions)
        bodies = [
            f"{quoted(head)} {embedded(arguments_schema(function))} {quoted('}')}"
            for head, function in zip(heads, functions, strict=True)
        ]
        return self.alternatives("call", bodies)

    def build(
        self,
        item: str,
        *,
        parallel: bool,
        separator: str = "",
        before: str = "",
        after: str = "",
    ) -> Grammar:
        """The grammar of one `item`, or several, between `before` and `after`."""
        more = f"({separator} {item}){{0,{MAX_CALLS - 1}}}" if parallel else ""
        start = " ".join(part for part in ("start:", before, item, more, after) if part)
        lines = [start, *self._rules]
        return Grammar(kind="lark", source="\n".join(lines) + "\n")


def quoted(text: str) -> str:
    """A text as a Lark literal."""
    return json.dumps(text)


def embedded(schema: Mapping[str, Any]) -> str:
    """A JSON schema as a piece of a rule."""
    if schema.get("type") not in _SCALARS:
        schema = {**schema, "x-guidance": _SPACING}
    return f"%json {json.dumps(schema)}"
