"""Small sums: numbers up to twenty, products up to ten times ten, comparisons, word problems."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from recipe.corpus.exchange import Exchange

_PLAIN = (
    "What is {e}?",
    "{e} = ?",
    "Compute {e}.",
    "Calculate {e}.",
    "How much is {e}?",
    "{e}=",
    "What's {e}?",
    "Tell me {e}.",
    "Can you compute {e}?",
    "Solve {e}.",
    "What does {e} equal?",
    "Please calculate {e}.",
    "What is the result of {e}?",
    "Work out {e}.",
    "{e}",
    "Do the sum: {e}",
)
_SPOKEN = {
    "+": (
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "What is the sum of {a} and {b}?",
        "How much is {a} plus {b}?",
        "Add {b} to {a}.",
        "If you add {a} and {b}, what do you get?",
    ),
    "-": (
        "What is {a} minus {b}?",
        "Subtract {b} from {a}.",
        "Take {b} away from {a}.",
        "How much is {a} minus {b}?",
        "What is left when you take {b} from {a}?",
        "What is the difference between {a} and {b}?",
    ),
    "*": (
        "What is {a} times {b}?",
        "Multiply {a} by {b}.",
        "What is the product of {a} and {b}?",
        "How much is {a} times {b}?",
        "Multiply {a} and {b}.",
        "What do you get when you multiply {a} by {b}?",
    ),
}
_STORIES = {
    "+": (
        "Anna has {a} apples and gets {b} more. How many apples does she have?",
        "There are {a} red balls and {b} blue balls. How many balls are there?",
        "A server has {a} requests and {b} more arrive. How many requests are there?",
    ),
    "-": (
        "Tom has {a} coins and gives away {b}. How many coins are left?",
        "There are {a} birds and {b} fly away. How many birds stay?",
        "A queue holds {a} requests and {b} are answered. How many are left?",
    ),
    "*": (
        "There are {a} boxes with {b} pens each. How many pens are there?",
        "Each of {a} workers runs {b} requests. How many requests run?",
    ),
}


def _result(a: int, operator: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def _sums() -> Iterator[tuple[int, str, int]]:
    for a, b in product(range(21), repeat=2):
        yield a, "+", b
        if b <= a:
            yield a, "-", b
    for a, b in product(range(11), repeat=2):
        yield a, "*", b


def arithmetic_exchanges() -> Iterator[Exchange]:
    """Every sum in every wording; the answer repeats the sum, which fixes the digits in view."""
    for a, operator, b in _sums():
        key = f"{a} {operator} {b}"
        answer = f"{key} = {_result(a, operator, b)}"
        for sentence in _PLAIN + _SPOKEN[operator] + _STORIES[operator]:
            question = sentence.format(e=key, a=a, b=b)
            yield Exchange("arithmetic", key, question, answer)


def comparison_exchanges() -> Iterator[Exchange]:
    """Which of two numbers is larger or smaller, and whether a number is even or odd."""
    for a, b in product(range(21), repeat=2):
        if a == b:
            continue
        for word, value in (("larger", max(a, b)), ("smaller", min(a, b))):
            for sentence in (
                "Which number is {w}, {a} or {b}?",
                "Which is {w}, {a} or {b}?",
                "What is the {w} number, {a} or {b}?",
                "Tell me the {w} of {a} and {b}.",
                "Which one is {w}: {a} or {b}?",
                "Of {a} and {b}, which is {w}?",
                "Is {a} or {b} the {w} number?",
                "Pick the {w} number: {a} or {b}.",
            ):
                question = sentence.format(w=word, a=a, b=b)
                answer = f"{value} is {word}."
                yield Exchange("comparison", f"{word} {a} {b}", question, answer)
    for number in range(101):
        parity = "odd" if number % 2 else "even"
        for sentence in (
            "Is {n} even or odd?",
            "Is {n} an even number?",
            "Is {n} an odd number?",
            "Tell me if {n} is even or odd.",
            "Is the number {n} even or odd?",
            "Is {n} even?",
            "Is {n} odd?",
            "Even or odd: {n}?",
        ):
            answer = f"{number} is {parity}."
            yield Exchange("comparison", f"parity {number}", sentence.format(n=number), answer)
