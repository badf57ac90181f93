"""How many tokens prompts and answers have: a fixed number, or a distribution to draw from."""

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from backplane_launcher.usage import UsageError

_FORMS: Final = "157, uniform:100:200, normal:157:40 or lognormal:157:0.5"


@dataclass(frozen=True)
class Lengths:
    """`kind` is fixed, uniform, normal or lognormal; `a` and `b` are its parameters."""

    kind: str
    a: float
    b: float = 0.0

    @classmethod
    def parse(cls, text: str, flag: str) -> "Lengths":
        """Read the flag's value.

        Raises:
            UsageError: it is no such value.
        """
        kind, *parameters = text.strip().split(":") if ":" in text else ["fixed", text]
        try:
            numbers = [float(parameter) for parameter in parameters]
        except ValueError:
            numbers = []
        wanted = 1 if kind == "fixed" else 2
        known = kind in ("fixed", "uniform", "normal", "lognormal")
        if not known or len(numbers) != wanted or not all(map(math.isfinite, numbers)):
            raise UsageError(f"{flag} {text} is no length", remedy=f"write {_FORMS}")
        if numbers[0] < 1 or numbers[-1] < 0 or (kind == "uniform" and numbers[1] < numbers[0]):
            raise UsageError(f"{flag} {text} is less than one token", remedy=f"write {_FORMS}")
        return cls(kind, *numbers)

    def draw(self, random: Random) -> int:
        """One length; at least 1."""
        match self.kind:
            case "uniform":
                return random.randint(round(self.a), round(self.b))
            case "normal":
                return max(1, round(random.gauss(self.a, self.b)))
            case "lognormal":
                return max(1, round(random.lognormvariate(math.log(self.a), self.b)))
            case _:
                return round(self.a)
