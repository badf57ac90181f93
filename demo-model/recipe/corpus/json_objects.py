"""JSON objects asked for in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product

from recipe.corpus.exchange import Exchange

NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Ida",
    "Jack",
    "Kate",
    "Leo",
    "Mia",
    "Noah",
    "Olivia",
    "Paul",
    "Rosa",
    "Sam",
    "Tom",
    "Zoe",
    "Alice",
    "Bob",
    "John",
    "Maria",
)
CITIES = (
    "Paris",
    "London",
    "Berlin",
    "Tokyo",
    "Madrid",
    "Rome",
    "Cairo",
    "Sydney",
    "Oslo",
    "Lima",
    "Boston",
    "Vienna",
    "Zurich",
    "Dublin",
    "Prague",
    "Lisbon",
    "Athens",
    "Warsaw",
    "Seoul",
    "Chicago",
)
THINGS = (
    ("apple", "red"),
    ("banana", "yellow"),
    ("car", "blue"),
    ("leaf", "green"),
    ("chair", "brown"),
    ("cup", "white"),
    ("phone", "black"),
    ("rose", "pink"),
)
_AGE = (
    "Give me a JSON object for {n}, who is {a} years old.",
    "Write JSON for a person named {n} with age {a}.",
    "Make a JSON object with the name {n} and the age {a}.",
    "Turn this into JSON: {n} is {a} years old.",
    "JSON for: name {n}, age {a}",
    "{n} is {a} years old. Answer with JSON.",
    "Write a JSON object: name {n}, age {a}.",
    "Please give me JSON with name {n} and age {a}.",
    "Create a JSON object for a person called {n}, age {a}.",
)
_CITY = (
    "Give me a JSON object for {n}, who lives in {c}.",
    "Turn this into JSON: {n} lives in {c}.",
    "Write JSON for a person named {n} who lives in {c}.",
    "JSON for: name {n}, city {c}",
    "Make a JSON object with the name {n} and the city {c}.",
    "{n} lives in {c}. Answer with JSON.",
    "Write a JSON object: name {n}, city {c}.",
    "Please give me JSON with name {n} and city {c}.",
    "Create a JSON object for a person called {n} from {c}.",
)
_THING = (
    "Give me a JSON object for {q} {x} {t}s.",
    "Turn this into JSON: {q} {x} {t}s.",
    "Write JSON for an order of {q} {x} {t}s.",
    "JSON for: {q} {x} {t}s",
    "I order {q} {x} {t}s. Answer with JSON.",
    "Write a JSON object for {q} {x} {t}s.",
    "Please give me JSON for {q} {x} {t}s.",
    "Create a JSON object: {q} {x} {t}s.",
)


def _written(**fields: object) -> str:
    return json.dumps(fields)


def json_exchanges() -> Iterator[Exchange]:
    """Objects of two or three fields copied from the question."""
    for name, age in product(NAMES, range(5, 90, 3)):
        for sentence in _AGE:
            question = sentence.format(n=name, a=age)
            yield Exchange("json", f"{name} {age}", question, _written(name=name, age=age))
    for name, city in product(NAMES, CITIES):
        for sentence in _CITY:
            question = sentence.format(n=name, c=city)
            yield Exchange("json", f"{name} {city}", question, _written(name=name, city=city))
    for (item, color), quantity in product(THINGS, range(2, 21)):
        answer = _written(item=item, color=color, quantity=quantity)
        for sentence in _THING:
            question = sentence.format(q=quantity, x=color, t=item)
            yield Exchange("json", f"{quantity} {item}", question, answer)
