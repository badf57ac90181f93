"""Prompts of a wanted length that no server has seen before, made from a seed.

Knows nothing of APIs: a prompt is a list of token ids, or words.
"""

from random import Random
from typing import Final

from backplane_launcher.usage import UsageError

# Short and frequent, so that most vocabularies have each as one token behind a space.
_TEXT: Final = """
the of and to in is that for it was on are as with his they at be this from have or by one had
not but what all were when we there can an your which their said if do will each about how up
out them then she many some so these would other into has more her two like him see time could
no make than first been its who now people my made over did down only way find use may water
long little very after words called just where most know get through back much before go good
new write our used me man too any day same right look think also around another came come work
three word must because does part even place well such here take why things help put years
different away again off went old number great tell men say small every found still between
name should home big give air line set own under read last never us left end along while might
next sound below saw something thought both few those always looked show large often together
asked house world going want school important until form food keep children feet land side
without boy once animals life enough took sometimes four head above kind began almost live
page got earth need far hand high year mother light parts
"""
WORDS: Final = tuple(_TEXT.split())
# Of a prompt's own tokens, so many at most number it.
_MAX_DIGITS: Final = 6


def token_range(text: str) -> range:
    """Read `--token-ids`.

    Raises:
        UsageError: it is not FIRST:END with some ids between.
    """
    first, _, end = text.partition(":")
    if first.isdecimal() and end.isdecimal() and int(end) - int(first) > 1:
        return range(int(first), int(end))
    raise UsageError(f"--token-ids {text} is no range of ids", remedy="write FIRST:END")


class PromptMaker:
    """Makes prompts by number. Equal seeds, numbers and lengths give equal prompts.

    Two numbers give different prompts wherever the length leaves room for that: the first tokens
    after the shared ones spell the number.
    """

    def __init__(self, *, seed: int, ids: range | None, num_shared: int) -> None:
        self._seed = seed
        self._ids = ids
        self._num_symbols = len(WORDS if ids is None else ids)
        self._offset = Random(f"{seed}:offset").randrange(self._num_symbols**_MAX_DIGITS)  # noqa: S311 - no secret
        self._shared = self._symbols(Random(f"{seed}:shared"), num_shared)  # noqa: S311 - no secret

    def make(self, number: int, length: int) -> str | list[int]:
        """The shared tokens, then `length` of its own."""
        random = Random(f"{self._seed}:{number}")  # noqa: S311 - no secret
        num_digits = min(length, _MAX_DIGITS)
        digits = self._digits(number, num_digits)
        symbols = self._shared + digits + self._symbols(random, length - num_digits)
        if self._ids is None:
            return " ".join(WORDS[symbol] for symbol in symbols)
        first = self._ids.start
        return [first + symbol for symbol in symbols]

    def _symbols(self, random: Random, num: int) -> list[int]:
        return random.choices(range(self._num_symbols), k=num)

    def _digits(self, number: int, num: int) -> list[int]:
        # The fastest digit stands first, so that prompts part at their first token.
        value = self._offset + number
        digits: list[int] = []
        for _ in range(num):
            value, digit = divmod(value, self._num_symbols)
            digits.append(digit)
        return digits
