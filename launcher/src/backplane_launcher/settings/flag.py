"""How a flag is declared: its groups in the help, its names, its checks, its conversions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from cyclopts import Group, Parameter, Token
from cyclopts.validators import Number

MODEL: Final = Group("Model", sort_key=1)
BACKEND: Final = Group("Backend", sort_key=2)
SERVER: Final = Group("Server", sort_key=3)
LIMITS: Final = Group("Limits", sort_key=4)
SUPERVISION: Final = Group("Supervision and logs", sort_key=5)
REPLACED: Final = Group("TGI's, taken and replaced", sort_key=6)
REFUSED: Final = Group("TGI's, refused", sort_key=7)

# Below infinity: JSON, in which children are told, has neither infinity nor nan.
FINITE: Final = Number(gt=-math.inf, lt=math.inf)
POSITIVE: Final = Number(gte=1)
POSITIVE_NUMBER: Final = Number(gt=0, lt=math.inf)
NOT_NEGATIVE: Final = Number(gte=0, lt=math.inf)

_TRUE: Final = frozenset({"1", "true"})
_FALSE: Final = frozenset({"0", "false"})


def flag(
    group: Group,
    *names: str,
    help: str,  # noqa: A002 - cyclopts' word
    validator: Number | None = None,
    converter: Callable[[Any, Sequence[Token]], Any] | None = None,
    takes_hyphen: bool = False,
) -> Parameter:
    """One flag. A `converter` gets the flag's one value, whatever the field's type.

    `takes_hyphen`: its value may begin with one, as the `-` of standard output does.
    """
    return Parameter(
        name=names,
        group=group,
        help=help,
        validator=validator,
        converter=converter,
        n_tokens=None if converter is None else 1,
        allow_leading_hyphen=takes_hyphen,
        negative=(),
    )


def boolean_word(text: str) -> str | None:
    """`true` or `false` for the words that mean it, in any case; None for other words."""
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return "true"
    return "false" if lowered in _FALSE else None


def switch(hint: Any, tokens: Sequence[Token]) -> str:
    """For a flag that must be given `true` or `false`."""
    del hint
    word = boolean_word(tokens[0].value)
    if word is None:
        raise ValueError(f"{tokens[0].value} is neither true nor false")
    return word


def counts(hint: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """For whole numbers with commas between them."""
    del hint
    numbers: list[int] = []
    for part in ",".join(token.value for token in tokens).split(","):
        if not part.strip().isdecimal():
            raise ValueError(f"{part.strip() or 'nothing'} is no whole number from 0 up")
        numbers.append(int(part))
    return tuple(numbers)


def numbers(hint: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """For numbers above 0 with commas between them."""
    del hint
    values: list[float] = []
    for part in ",".join(token.value for token in tokens).split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise ValueError(f"{part.strip() or 'nothing'} is no number above 0")
        values.append(value)
    return tuple(values)


def words(hint: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """For words with commas between them, in one value or several; empty ones are left out."""
    del hint
    parts = (part.strip() for token in tokens for part in token.value.split(","))
    return tuple(part for part in parts if part)
