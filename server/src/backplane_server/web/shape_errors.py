"""Says in JSON's words why a body has not the shape it should have, and where.

The decoder's own sentences speak of Python's types; those never reach a client.
"""

import re
from typing import Any, Final, cast

from backplane_server.errors import BodyError

_PATH: Final = re.compile(
    r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$?(?P<path>[^`]*)`)?", re.DOTALL
)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_TYPES: Final = re.compile(r"`(?P<names>[a-z]+(?: \| [a-z]+)*)`")
# From the decoder's words to JSON's.
_WORDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "null",
    "object": "an object",
    "str": "a string",
}
_MAX_KEY_CHARS: Final = 40


def shape_error(text: str, body: Any) -> BodyError:
    """The decoder's sentence as one that names the field as the client wrote it.

    Args:
        text: the decoder's.
        body: the same JSON, as it is.
    """
    match = _PATH.fullmatch(text)
    what = match["what"] if match else text
    path = (match["path"] or "").removeprefix(".").removesuffix("[...]") if match else ""
    if missing := _MISSING.fullmatch(what):
        path = f"{path}.{missing['name']}" if path else missing["name"]
        return BodyError(f"`{path}` is missing", parameter=path)
    if match and match["key"]:
        return _key_error(path, body)
    problem = lower_first(_TYPES.sub(_in_json, what))
    if not path:
        return BodyError(f"the body: {problem}")
    return BodyError(f"`{path}`: {problem}", parameter=path)


def lower_first(text: object) -> str:
    """A sentence as part of another; an acronym stays as it is."""
    sentence = str(text)
    is_acronym = sentence[1:2].isupper()  # "JSON is malformed"
    return sentence if is_acronym else sentence[:1].lower() + sentence[1:]


def _in_json(match: re.Match[str]) -> str:
    """The types' names; a length or a limit that follows reads on ("a string of length <= 3")."""
    names = match["names"].split(" | ")
    return " or ".join(_WORDS.get(name, name) for name in names)


def _key_error(path: str, body: Any) -> BodyError:
    """Keys that are no strings are token ids: JSON can have them as digits only."""
    found = next((key for key in _keys(path, body) if not _is_whole_number(key)), None)
    told = "" if found is None else f", not {found[:_MAX_KEY_CHARS]!r}"
    return BodyError(f"`{path}`: keys must be token ids in digits{told}", parameter=path)


def _keys(path: str, body: Any) -> list[str]:
    for name in path.split("."):
        if not isinstance(body, dict):
            return []
        body = cast("dict[str, Any]", body).get(name)
    return list(cast("dict[str, Any]", body)) if isinstance(body, dict) else []


def _is_whole_number(key: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", key) is not None
