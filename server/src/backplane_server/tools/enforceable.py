"""Functions as a grammar can be made of them: their schemas bounded, and as they are meant."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from backplane_core.errors import ValidationError
from backplane_core.tool_parsers import ToolFunction

from backplane_server.grammars.json_schemas import prepared
from backplane_server.grammars.sources import MAX_SOURCE_BYTES
from backplane_server.tools.arguments_schema import arguments_schema

# Words for people are not in a grammar, but they have to be read to be left out.
MAX_BYTES_WITH_WORDS: Final = 4 * MAX_SOURCE_BYTES
_REMEDY: Final = "allow fewer of them, or send `tool_choice` auto"


def enforceable(
    offered: Sequence[ToolFunction], allowed: Sequence[ToolFunction], *, older: bool
) -> list[ToolFunction]:
    """Those that are allowed, with schemas that a grammar can be made of.

    Nothing is built of schemas before their size is known.

    Args:
        offered: all functions, as they stand in the request.
        allowed: some of them.
        older: they came as `functions`, and not as `tools`.

    Raises:
        ValidationError: the schemas are too large, together; or one is none, and its place.
    """
    field = "functions" if older else "tools"
    path = f"{field}[{{}}].parameters" if older else f"{field}[{{}}].function.parameters"
    numbers = {function.name: number for number, function in enumerate(offered)}
    _check_size(
        field,
        (msgspec.json.encode(function.parameters) for function in allowed),
        MAX_BYTES_WITH_WORDS,
    )
    bare: list[bytes] = []
    _check_size(field, _bare(allowed, bare), MAX_SOURCE_BYTES, "without descriptions, ")
    return [
        msgspec.structs.replace(
            function,
            parameters=prepared(msgspec.json.decode(encoded), path.format(numbers[function.name])),
        )
        for function, encoded in zip(allowed, bare, strict=True)
    ]


def _bare(functions: Sequence[ToolFunction], bare: list[bytes]) -> Iterator[bytes]:
    """What their arguments obey, one after another; each is put into the list."""
    for function in functions:
        bare.append(msgspec.json.encode(arguments_schema(function)))
        yield bare[-1]


def _check_size(field: str, schemas: Iterator[bytes], limit: int, what: str = "") -> None:
    num_bytes = 0
    for schema in schemas:
        num_bytes += len(schema)
        if num_bytes > limit:
            raise ValidationError(
                f"the schemas of those `{field}` that may be called have more than {limit} bytes, "
                f"{what}which is the most that a call can be made to obey",
                parameter=field,
                remedy=_REMEDY,
            )
