"""Reads one call written as a JSON object, such as {"name": "f", "arguments": {…}}, in pieces."""

from collections.abc import Collection
from enum import Enum
from typing import Final, Literal

import msgspec

from backplane_server.tools.output import ParserOutput
from backplane_server.tools.streaming import skip_space
from backplane_server.tools.values import ValueReader

_MAX_KEY: Final = 64  # characters, quotes and escapes included
_MAX_NAME: Final = 400  # likewise: 64 characters may all be written as escapes
_MAX_HELD: Final = 1 << 20  # of a call whose arguments come before its name

_NAMES: Final = frozenset({"name", "function"})
_ARGUMENTS: Final = frozenset({"arguments", "parameters"})
_OTHERS: Final = frozenset({"id", "type"})


class Progress(Enum):
    """How far a call is.

    `NOT_A_CALL`: it only looked like one, and nothing was told of it. `BROKEN`: it was told of,
    and then stopped being JSON.
    """

    READING = "reading"
    DONE = "done"
    NOT_A_CALL = "not a call"
    BROKEN = "broken"


class CallObject:
    """Reads one object. A call is told of as soon as its name and where its arguments begin are.

    Args:
        functions: the names a call may have; any other is no call.
        bare: no mark says that this is a call, so it has to have arguments to be one.
    """

    def __init__(self, functions: Collection[str], out: ParserOutput, *, bare: bool) -> None:
        self.progress = Progress.READING
        self._functions = functions
        self._out = out
        self._bare = bare
        self._at: Literal["open", "key", "colon", "value", "comma"] = "open"
        self._key = ""
        self._seen: set[str] = set()
        self._value: ValueReader | None = None
        self._value_size = 0
        self._value_pieces: list[str] = []
        self._name: str | None = None
        self._told = False
        self._has_arguments = False
        self._arguments: list[str] = []
        self._raw: list[str] = []
        self._raw_size = 0

    @property
    def raw(self) -> str:
        """The text read so far, while nothing was told of it."""
        return "".join(self._raw)

    def feed(self, text: str, position: int) -> int:
        """Read on; where reading stopped: the end, after the object, or where it is none."""
        start = position
        end = len(text) if self._told else min(len(text), position + _MAX_HELD - self._raw_size)
        piece = text if end == len(text) else text[:end]
        while position < len(piece) and self.progress is Progress.READING:
            position = self._step(piece, position)
        if not self._told:
            self._raw.append(text[start:position])
            self._raw_size += position - start
            if self._raw_size == _MAX_HELD and self.progress is Progress.READING:
                self.progress = Progress.NOT_A_CALL
        else:
            self._raw.clear()
            if self.progress is Progress.READING and position < len(text):
                return self.feed(text, position)
        return position

    def _step(self, text: str, position: int) -> int:
        if self._value is not None:
            return self._read_value(self._value, text, position)
        position = skip_space(text, position)
        if position == len(text):
            return position
        character = text[position]
        match self._at:
            case "open" if character == "{":
                self._at = "key"
            case "key" if character == '"':
                self._begin_value()
                return position
            case "colon" if character == ":":
                self._at = "value"
            case "value" if self._may_begin(character):
                if character == "{" and self._name is not None:
                    self._tell()
                self._begin_value()
                return position
            case "comma" if character == ",":
                self._at = "key"
            case "comma" if character == "}":
                self._close()
            case _:
                self._fail()
                return position
        return position + 1

    # ── keys and values ──────────────────────────────────────────────────────────────────

    def _may_begin(self, character: str) -> bool:
        if self._key in _NAMES:
            return character == '"'
        if self._key in _ARGUMENTS:
            return character in '{"n'
        return character not in "{["

    def _begin_value(self) -> None:
        self._value = ValueReader()
        self._value_size = 0

    def _read_value(self, value: ValueReader, text: str, position: int) -> int:
        is_arguments = self._at == "value" and self._key in _ARGUMENTS
        limit = len(text)
        if not is_arguments:
            most = _MAX_KEY if self._at == "key" else _MAX_NAME
            limit = min(limit, position + most + 1 - self._value_size)
        read = value.feed(text if limit == len(text) else text[:limit], position)
        self._value_size += read - position
        written = value.take()
        if is_arguments and self._told:
            self._out.arguments(written)
        else:
            self._value_pieces.append(written)
        if value.failed or (not value.done and limit < len(text)):
            self._fail()
        elif value.done:
            self._value = None
            json = "".join(self._value_pieces)
            self._value_pieces.clear()
            self._end_value(json)
        return read

    def _end_value(self, json: str) -> None:
        if self._at == "key":
            self._end_key(json)
            return
        self._at = "comma"
        if self._key in _NAMES:
            self._name = _text(json)
            if self._name not in self._functions:
                self._fail()
            elif self._has_arguments:
                self._tell()
        elif self._key in _ARGUMENTS:
            self._end_arguments(json)

    def _end_key(self, json: str) -> None:
        self._key = _text(json)
        kind = "name" if self._key in _NAMES else "arguments" if self._key in _ARGUMENTS else ""
        self._at = "colon"
        # "type": "function" beside "function": "f" is told apart from a function's own object.
        if (kind or self._key) in self._seen or not (kind or self._key in _OTHERS):
            self._fail()
        self._seen.add(kind or self._key)

    def _end_arguments(self, json: str) -> None:
        self._has_arguments = True
        if self._told:
            return
        if json == "null":
            json = "{}"
        elif json.startswith('"'):
            json = _text(json).strip()
            if not _is_object(json):
                self._fail()
                return
        elif not json.startswith("{"):
            self._fail()
            return
        self._arguments.append(json)
        if self._name is not None:
            self._tell()

    # ── what it comes to ─────────────────────────────────────────────────────────────────

    def _tell(self) -> None:
        """The call is certain to be one."""
        if self._name is not None:
            self._out.call(self._name)
        self._told = True
        self._out.arguments("".join(self._arguments))
        self._arguments.clear()

    def _close(self) -> None:
        if not self._told:
            if self._name is None or self._bare:
                self._fail()
                return
            self._arguments.append("{}")
            self._tell()
        self.progress = Progress.DONE

    def _fail(self) -> None:
        self.progress = Progress.BROKEN if self._told else Progress.NOT_A_CALL


def _text(json: str) -> str:
    try:
        return msgspec.json.decode(json, type=str)
    except msgspec.DecodeError:  # half of a surrogate pair, escaped: no name, key or object
        return ""


def _is_object(json: str) -> bool:
    reader = ValueReader()
    return json.startswith("{") and reader.feed(json, 0) == len(json) and reader.done
