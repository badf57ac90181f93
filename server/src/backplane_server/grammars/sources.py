"""Wire grammars from what clients write. `name` is the parameter that an error tells of.

They are shaped and bounded here; whether they can be compiled is the checker's to find out.
"""

from typing import Any, Final, cast

import msgspec
from backplane_core.errors import ValidationError
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.messages import Grammar

from backplane_server.grammars.json_schemas import prepared, refuse_huge_numbers

MAX_SOURCE_BYTES: Final = GuidanceLimits().max_source_bytes
_SPECIAL_IN_REGEX: Final = frozenset("\\.+*?()|[]{}^$/&-~#")


def json_schema(schema: Any, name: str) -> Grammar:
    """JSON that a schema describes: an object, a boolean, or either as a JSON text.

    As TGI's clients expect, a schema with `properties` and no `type` describes objects.

    Raises:
        ValidationError: it is none of these, too large or too deep, or refers elsewhere.
    """
    if isinstance(schema, str):
        _check_size(schema, name)
        try:
            schema = msgspec.json.decode(schema)
        except msgspec.ValidationError:  # all that can be wrong with a value of any type
            raise ValidationError(
                f"`{name}` holds a number that is too large", parameter=name
            ) from None
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            raise ValidationError(
                f"`{name}` is a string that holds no JSON", parameter=name
            ) from None
    if schema is True:
        schema = {}
    if schema is False:
        raise ValidationError(f"`{name}` is a schema that nothing can match", parameter=name)
    if not isinstance(schema, dict):
        raise ValidationError(
            f"`{name}` must be a JSON schema: an object, or a string that holds one",
            parameter=name,
        )
    try:
        encoded = msgspec.json.encode(schema)
        if len(encoded) <= MAX_SOURCE_BYTES:
            copy = msgspec.json.decode(encoded)
            refuse_huge_numbers(copy, encoded, name)
            encoded = msgspec.json.encode(prepared(copy, name))
    except RecursionError:
        raise ValidationError(f"`{name}` nests too deep", parameter=name) from None
    except UnicodeEncodeError:
        raise ValidationError(f"`{name}` holds text that is not Unicode", parameter=name) from None
    return _bounded("json_schema", encoded.decode(), name)


def json_object() -> Grammar:
    """Any JSON object."""
    return Grammar(kind="json_schema", source='{"type":"object"}')


def regex(pattern: Any, name: str) -> Grammar:
    """A text that an expression matches from its first character to its last.

    Raises:
        ValidationError: it is no string, empty, or too long.
    """
    return _bounded("regex", _text(pattern, name), name)


def choice(texts: Any, name: str) -> Grammar:
    """One of some texts.

    Raises:
        ValidationError: it is no list of strings, empty, or too long.
    """
    if not isinstance(texts, list) or not texts:
        raise ValidationError(f"`{name}` must be a list of at least one string", parameter=name)
    items = cast("list[Any]", texts)
    words: list[str] = []
    num_chars = 0
    for text in items:
        if not isinstance(text, str) or not text:
            _text(text, f"{name}[{len(words)}]")  # which says what is wrong
        num_chars += len(text) + 1
        if num_chars > MAX_SOURCE_BYTES:  # nothing is built of what is too long in any case
            raise ValidationError(
                f"`{name}` has more than {MAX_SOURCE_BYTES} bytes, which is the most that is taken",
                parameter=name,
            )
        words.append(_escaped(text))
    return _bounded("regex", f"(?:{'|'.join(words)})", name)


def grammar(source: Any, name: str) -> Grammar:
    """A context-free grammar in Lark's syntax or llama.cpp's GBNF.

    Raises:
        ValidationError: it is no string, empty, or too long.
    """
    return _bounded("lark", _text(source, name), name)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValidationError(f"`{name}` must be a string that is not empty", parameter=name)
    return value


def _bounded(kind: Any, source: str, name: str) -> Grammar:
    _check_size(source, name)
    return Grammar(kind=kind, source=source)


def _check_size(source: str, name: str) -> None:
    num_bytes = len(source.encode(errors="replace"))
    if num_bytes > MAX_SOURCE_BYTES:
        raise ValidationError(
            f"`{name}` has {num_bytes} bytes; at most {MAX_SOURCE_BYTES} are taken",
            parameter=name,
        )


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in _SPECIAL_IN_REGEX else char for char in text)
