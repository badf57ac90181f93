"""Reads one JSON or Python literal from text that arrives in pieces, and writes it as JSON.

Strict, with bounded depth, in time linear in the text; nothing is ever evaluated.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 64
_MAX_NUMBER: Final = 400  # characters
_MAX_WORD: Final = 8

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_RUNS: Final = {
    '"': re.compile(r'[^"\\\x00-\x1f]*'),
    "'": re.compile(r"[^'\"\\\x00-\x1f]*"),
}
_NUMBER_RUN: Final = re.compile(r"[0-9+\-.eE]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD_RUN: Final = re.compile(r"[A-Za-z]*")
_CONTROL: Final = {chr(code): f"\\u{code:04x}" for code in range(0x20)} | {
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_CLOSERS: Final = {"{": "}", "[": "]", "(": ")"}
_HEX: Final = frozenset("0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Syntax:
    """What may stand in a literal.

    Attributes:
        quotes: characters that open a string.
        words: bare words and the JSON they mean.
        openers: characters that open a container.
        escapes: what follows a backslash, and the JSON it is; others are errors.
        hex_escapes: likewise, followed by that many hexadecimal digits.
        keep_unknown_escapes: whether another escape is a backslash and that character.
    """

    quotes: str
    words: dict[str, str]
    openers: str
    escapes: dict[str, str]
    hex_escapes: dict[str, int]
    keep_unknown_escapes: bool = False


_JSON_WORDS: Final = {"true": "true", "false": "false", "null": "null"}
JSON: Final = Syntax(
    quotes='"',
    words=_JSON_WORDS,
    openers="{[",
    escapes={character: f"\\{character}" for character in '"\\/bfnrt'},
    hex_escapes={"u": 4},
)
PYTHON: Final = Syntax(
    quotes="\"'",
    words=_JSON_WORDS | {"True": "true", "False": "false", "None": "null"},
    openers="{[(",
    escapes={character: f"\\{character}" for character in '"\\bfnrt'}
    | {"'": "'", "\n": "", "a": "\\u0007", "v": "\\u000b", "0": "\\u0000", "/": "/"},
    hex_escapes={"x": 2, "u": 4, "U": 8},
    keep_unknown_escapes=True,
)


class ValueReader:
    """Reads one value. What it wrote as JSON so far is taken with `take`.

    JSON comes out as it went in, but for control characters in strings, which are escaped, and
    commas before a closing bracket, which are left out: both a matter of single characters, so
    how the text is cut changes nothing.

    Attributes:
        done: the value is complete; what follows is not of it.
        failed: the text is no such value.
    """

    def __init__(self, syntax: Syntax = JSON) -> None:
        self.done = False
        self.failed = False
        self._syntax = syntax
        self._mode: Callable[[str, int], int] = self._between
        self._stack: list[str] = []
        self._expected = "value"  # or: "key", "colon", "comma"
        self._closable = False  # whether the container may end where a value or key is expected
        self._written: list[str] = []
        self._comma: list[str] = []  # a comma and what followed, until it separates something
        self._token: list[str] = []
        self._token_size = 0
        self._quote = '"'

    def take(self) -> str:
        """The JSON written since the last call."""
        written = "".join(self._written)
        self._written.clear()
        return written

    def feed(self, text: str, position: int) -> int:
        """Read on from `text[position]`; where reading stopped: the end, or after the value.

        When it failed, that is the character that cannot stand there.
        """
        size = len(text)
        while position < size and not (self.done or self.failed):
            position = self._mode(text, position)
        return position

    # ── between tokens ───────────────────────────────────────────────────────────────────

    def _between(self, text: str, position: int) -> int:
        end = _SPACE.match(text, position).end()  # pyright: ignore[reportOptionalMemberAccess] -- it matches nothing, too
        if end > position:
            (self._comma or self._written).append(text[position:end])
            return end
        character = text[position]
        if self._closable and self._stack and character == _CLOSERS[self._stack[-1]]:
            self._close()
            return position + 1
        if self._expected == "colon" and character == ":":
            self._write(":")
            self._expect("value")
        elif self._expected == "comma" and character == ",":
            self._comma.append(",")
            self._expect("key" if self._stack[-1] == "{" else "value", closable=True)
        elif self._expected in {"value", "key"} and character in self._syntax.quotes:
            self._write('"')
            self._quote = character
            self._mode = self._string
        elif self._expected == "value":
            return self._begin(character, position)
        else:
            self.failed = True
            return position
        return position + 1

    def _begin(self, character: str, position: int) -> int:
        if character in self._syntax.openers:
            if len(self._stack) == MAX_DEPTH:
                self.failed = True
                return position
            self._stack.append(character)
            self._write("{" if character == "{" else "[")
            self._expect("key" if character == "{" else "value", closable=True)
            return position + 1
        if character.isascii() and (character.isdigit() or character == "-"):
            self._mode = self._number
        elif character.isascii() and character.isalpha():
            self._mode = self._word
        else:
            self.failed = True
        return position

    def _expect(self, what: str, *, closable: bool = False) -> None:
        self._expected = what
        self._closable = closable

    def _write(self, text: str) -> None:
        if self._comma:
            self._written.extend(self._comma)
            self._comma.clear()
        self._written.append(text)

    def _close(self) -> None:
        self._comma.clear()
        self._written.append("}" if self._stack.pop() == "{" else "]")
        self._after_value()

    def _after_value(self) -> None:
        self._mode = self._between
        if self._stack:
            self._expect("comma", closable=True)
        else:
            self.done = True

    # ── tokens ───────────────────────────────────────────────────────────────────────────

    def _string(self, text: str, position: int) -> int:
        end = _RUNS[self._quote].match(text, position).end()  # pyright: ignore[reportOptionalMemberAccess] -- likewise
        if end > position:
            self._written.append(text[position:end])
            return end
        character = text[position]
        if character == self._quote:
            self._written.append('"')
            if self._expected == "key":
                self._mode = self._between
                self._expect("colon")
            else:
                self._after_value()
        elif character == "\\":
            self._mode = self._escape
        elif character == '"':
            self._written.append('\\"')
        else:
            self._written.append(_CONTROL[character])
        return position + 1

    def _escape(self, text: str, position: int) -> int:
        character = text[position]
        if character in self._syntax.hex_escapes:
            self._token = [character]
            self._mode = self._hex_escape
            return position + 1
        written = self._syntax.escapes.get(character)
        if written is None and self._syntax.keep_unknown_escapes and character >= " ":
            written = "\\\\" + character
        if written is None:
            self.failed = True
            return position
        self._written.append(written)
        self._mode = self._string
        return position + 1

    def _hex_escape(self, text: str, position: int) -> int:
        if text[position] not in _HEX:
            self.failed = True
            return position
        self._token.append(text[position])
        letter, *digits = self._token
        if len(digits) == self._syntax.hex_escapes[letter]:
            self._token = []
            if letter == "u":
                self._written.append("\\u" + "".join(digits))
            else:
                code = int("".join(digits), 16)
                if code > 0x10FFFF:  # noqa: PLR2004 -- Unicode's last code point
                    self.failed = True
                    return position
                self._written.append(_escaped(code))
            self._mode = self._string
        return position + 1

    def _number(self, text: str, position: int) -> int:
        return self._collect(text, position, _NUMBER_RUN, _MAX_NUMBER, self._end_number)

    def _word(self, text: str, position: int) -> int:
        return self._collect(text, position, _WORD_RUN, _MAX_WORD, self._end_word)

    def _collect(
        self,
        text: str,
        position: int,
        run: re.Pattern[str],
        limit: int,
        end_token: Callable[[str], str | None],
    ) -> int:
        """Hold a token's characters until one that is not of it shows its end."""
        end = run.match(text, position).end()  # pyright: ignore[reportOptionalMemberAccess] -- likewise
        end = min(end, position + limit + 1 - self._token_size)
        self._token.append(text[position:end])
        self._token_size += end - position
        if self._token_size > limit:
            self.failed = True
            return end - 1
        if end < len(text):
            written = end_token("".join(self._token))
            self._token = []
            self._token_size = 0
            if written is None:
                self.failed = True
            else:
                self._write(written)
                self._after_value()
        return end

    def _end_number(self, token: str) -> str | None:
        return token if _NUMBER.fullmatch(token) else None

    def _end_word(self, token: str) -> str | None:
        return self._syntax.words.get(token)


def _escaped(code: int) -> str:
    """A character as JSON escapes, in UTF-16 as JSON has it."""
    if code < 0x10000:  # noqa: PLR2004 -- the end of the plane that one escape reaches
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
