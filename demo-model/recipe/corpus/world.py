"""A little general knowledge in tables: capitals, opposites, neighbours in a cycle, sounds."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.corpus.exchange import Exchange

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "England": "London",
    "Austria": "Vienna",
    "Greece": "Athens",
    "Egypt": "Cairo",
    "Portugal": "Lisbon",
    "Poland": "Warsaw",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Denmark": "Copenhagen",
    "Ireland": "Dublin",
    "Canada": "Ottawa",
    "China": "Beijing",
    "India": "New Delhi",
    "Russia": "Moscow",
    "Hungary": "Budapest",
    "Belgium": "Brussels",
    "Cuba": "Havana",
    "Kenya": "Nairobi",
    "Australia": "Canberra",
}
OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("high", "low"),
    ("open", "closed"),
    ("light", "dark"),
    ("old", "young"),
    ("happy", "sad"),
    ("full", "empty"),
    ("hard", "soft"),
    ("long", "short"),
    ("early", "late"),
    ("rich", "poor"),
    ("strong", "weak"),
    ("wet", "dry"),
    ("loud", "quiet"),
    ("near", "far"),
    ("true", "false"),
    ("left", "right"),
    ("up", "down"),
    ("day", "night"),
    ("good", "bad"),
    ("first", "last"),
    ("inside", "outside"),
)
SOUNDS = {
    "dog": "barks",
    "cat": "meows",
    "cow": "moos",
    "horse": "neighs",
    "sheep": "bleats",
    "duck": "quacks",
    "lion": "roars",
    "bee": "buzzes",
    "wolf": "howls",
    "pig": "grunts",
    "snake": "hisses",
}
COLORS = {
    "a banana": "yellow",
    "grass": "green",
    "snow": "white",
    "the sky": "blue",
    "blood": "red",
    "coal": "black",
    "a tomato": "red",
    "a lemon": "yellow",
    "milk": "white",
    "a leaf": "green",
    "the sea": "blue",
    "chocolate": "brown",
    "the sun": "yellow",
    "an orange": "orange",
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

_CAPITAL = (
    "What is the capital of {x}?",
    "Which city is the capital of {x}?",
    "Name the capital of {x}.",
    "Tell me the capital of {x}.",
    "What's the capital of {x}?",
    "Do you know the capital of {x}?",
    "The capital of {x} is which city?",
    "What is the name of the capital of {x}?",
    "Give me the capital of {x}.",
    "Which is the capital city of {x}?",
    "Capital of {x}?",
    "What is the capital city of {x}?",
    "Can you tell me the capital of {x}?",
)
_CAPITAL_OF = (
    "{x} is the capital of which country?",
    "Of which country is {x} the capital?",
    "Which country has the capital {x}?",
    "In which country is {x}?",
    "Where is {x}?",
    "What country is {x} the capital of?",
    "Tell me which country {x} is in.",
    "Where is {x} located?",
)
_OPPOSITE = (
    "What is the opposite of {x}?",
    "Tell me the opposite of {x}.",
    "Name the opposite of {x}.",
    "What's the opposite of {x}?",
    "Give me the opposite of {x}.",
    "Opposite of {x}?",
    "Which word is the opposite of {x}?",
    "What word means the opposite of {x}?",
    "Do you know the opposite of {x}?",
)
_SOUND = (
    "What does a {x} do?",
    "What sound does a {x} make?",
    "Which sound does a {x} make?",
    "How does a {x} sound?",
    "Tell me the sound of a {x}.",
    "What noise does a {x} make?",
    "What does a {x} say?",
    "Do you know what sound a {x} makes?",
)
_COLOR = (
    "What color is {x}?",
    "Which color has {x}?",
    "Tell me the color of {x}.",
    "What colour is {x}?",
    "What is the color of {x}?",
    "Which color is {x}?",
    "Name the color of {x}.",
    "Do you know the color of {x}?",
    "In which color do we see {x}?",
)
_NEXT = (
    "What comes after {x}?",
    "Which {k} comes after {x}?",
    "What {k} follows {x}?",
    "Tell me the {k} after {x}.",
    "What is the {k} after {x}?",
    "Which {k} follows {x}?",
    "After {x} comes which {k}?",
    "Name the {k} that comes after {x}.",
)
_BEFORE = (
    "What comes before {x}?",
    "Which {k} comes before {x}?",
    "Tell me the {k} before {x}.",
    "What is the {k} before {x}?",
    "Name the {k} that comes before {x}.",
    "Before {x} comes which {k}?",
    "Which {k} is right before {x}?",
    "What {k} is before {x}?",
)


def _capitals() -> Iterator[Exchange]:
    for country, capital in CAPITALS.items():
        answer = f"The capital of {country} is {capital}."
        for sentence in _CAPITAL:
            yield Exchange("world", answer, sentence.format(x=country), answer)
        located = f"{capital} is the capital of {country}."
        for sentence in _CAPITAL_OF:
            yield Exchange("world", located, sentence.format(x=capital), located)


def _neighbours() -> Iterator[Exchange]:
    for kind, names in (("day", DAYS), ("month", MONTHS)):
        for index, name in enumerate(names):
            following = names[(index + 1) % len(names)]
            after = f"{following} comes after {name}."
            before = f"{name} comes before {following}."
            for sentence in _NEXT:
                yield Exchange("world", after, sentence.format(x=name, k=kind), after)
            for sentence in _BEFORE:
                yield Exchange("world", before, sentence.format(x=following, k=kind), before)


def world_exchanges() -> Iterator[Exchange]:
    """Every table asked in every wording."""
    yield from _capitals()
    yield from _neighbours()
    for pair in OPPOSITES:
        for word, other in (pair, pair[::-1]):
            answer = f"The opposite of {word} is {other}."
            for sentence in _OPPOSITE:
                yield Exchange("world", answer, sentence.format(x=word), answer)
    for animal, sound in SOUNDS.items():
        answer = f"A {animal} {sound}."
        for sentence in _SOUND:
            yield Exchange("world", answer, sentence.format(x=animal), answer)
    for thing, color in COLORS.items():
        answer = f"{thing[0].upper()}{thing[1:]} is {color}."
        for sentence in _COLOR:
            yield Exchange("world", answer, sentence.format(x=thing), answer)
