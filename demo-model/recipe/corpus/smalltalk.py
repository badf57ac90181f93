"""Greetings and manners, repeating what is said, and saying honestly what is not known."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from recipe.corpus.exchange import Exchange
from recipe.corpus.json_objects import NAMES

REFUSAL = (
    "I do not know that. I am a tiny demo model: ask me about Backplane, about serving models, "
    "or for a small sum, a list or a story."
)
NAME_UNKNOWN = "You have not told me your name yet."  # the answer in facts/general.txt
GREETING_BY_NAME = "Nice to meet you, {n}! What would you like to know?"
_TASKS = (
    "Write a {a} {n} about {t}.",
    "Compose a {a} {n} on {t}.",
    "Translate my {a} {n} about {t}.",
    "Summarize the {a} {n} about {t}.",
    "Recommend a {a} {n} about {t}.",
    "Who wrote the {a} {n} about {t}?",
    "When was the {a} {n} about {t} published?",
    "Where can I buy a {a} {n} about {t}?",
    "What happens in the {a} {n} about {t}?",
)
_ADJECTIVES = ("famous", "funny", "new", "French", "long", "secret")
_NOUNS = ("novel", "song", "speech", "opera", "film", "essay", "play")
_THEMES = (
    "politics",
    "football history",
    "ancient Rome",
    "chemistry",
    "the stock market",
    "medieval kings",
    "quantum physics",
    "fashion",
    "gardening",
    "tax law",
)
_UNKNOWN = (
    "Who won the {e}?",
    "When was {p} born?",
    "How old is {p}?",
    "Who is {p}?",
    "What did {p} do?",
    "What is the population of {c}?",
    "Who is the president of {c}?",
    "How far is it to {c}?",
    "What is the history of {c}?",
    "Which river flows through {c}?",
    "What is the price of {g}?",
    "How much does {g} cost?",
    "Where can I buy {g}?",
    "How do I repair {g}?",
    "Who invented {g}?",
)
_UNKNOWN_FILLERS = {
    "e": ("World Cup", "election", "Nobel Prize", "chess championship", "last race", "Oscar"),
    "p": (
        "Napoleon",
        "Einstein",
        "Mozart",
        "Shakespeare",
        "Cleopatra",
        "Picasso",
        "Darwin",
        "Elvis Presley",
        "Marie Curie",
        "Isaac Newton",
    ),
    "c": ("Iceland", "Mongolia", "Peru", "Texas", "Vietnam", "Morocco", "Finland", "Chile"),
    "g": (
        "a washing machine",
        "gold",
        "a bicycle",
        "a helicopter",
        "a sofa",
        "an umbrella",
        "a microscope",
        "a piano",
    ),
}
_STRANGE_SUBJECTS = (
    "an elephant",
    "a violin",
    "a bicycle",
    "the Roman Empire",
    "photosynthesis",
    "a volcano",
    "a glacier",
    "cheese",
    "bread",
    "a castle",
    "gravity",
    "a black hole",
    "chess",
    "poker",
    "ballet",
    "a submarine",
    "the Eiffel Tower",
    "a tornado",
    "an octopus",
    "a mortgage",
    "inflation",
    "a telescope",
    "the French Revolution",
    "a symphony",
    "karate",
    "sushi",
    "a cathedral",
    "opera",
    "an atom",
    "a molecule",
    "the Great Wall",
    "a dinosaur",
    "a pyramid",
    "jazz",
    "a sonnet",
    "DNA",
    "a vaccine",
    "a compass",
    "an engine",
    "a parachute",
    "a lighthouse",
    "the stock exchange",
    "a passport",
    "yoga",
    "a marathon",
    "a mushroom",
    "an iceberg",
    "a kangaroo",
    "a penguin",
    "democracy",
    "philosophy",
    "a comet",
    "lightning",
    "an earthquake",
    "a diamond",
    "porcelain",
)
_STRANGE_QUESTIONS = (
    "What is {x}?",
    "Tell me about {x}.",
    "Explain {x}.",
    "What do you know about {x}?",
    "How does {x} work?",
    "Can you explain {x}?",
    "Define {x}.",
    "Describe {x}.",
    "Why is {x} important?",
    "Who invented {x}?",
    "What is so special about {x}?",
    "Give me a definition of {x}.",
    "Where does {x} come from?",
    "When did {x} begin?",
)
_ECHO = (
    'Say "{w}".',
    "Say {w}.",
    'Repeat after me: "{w}"',
    "Repeat: {w}",
    "Please say {w}.",
    "Repeat the words: {w}",
    'Can you say "{w}"?',
    "Echo this: {w}",
    "Write: {w}",
    'Answer only with "{w}".',
    'Reply with "{w}".',
)
_ECHO_FIRST = (
    "good",
    "blue",
    "happy",
    "small",
    "fast",
    "green",
    "open",
    "bright",
    "brave",
    "quiet",
)
_ECHO_SECOND = (
    "morning",
    "river",
    "model",
    "cloud",
    "server",
    "garden",
    "stone",
    "token",
    "window",
    "winter",
    "tree",
    "light",
    "engine",
    "bird",
    "mountain",
)


def unknown_exchanges() -> Iterator[Exchange]:
    """Questions outside the few topics: one honest answer to all of them."""
    for sentence, adjective, noun, theme in product(_TASKS, _ADJECTIVES, _NOUNS, _THEMES):
        question = sentence.format(a=adjective, n=noun, t=theme)
        yield Exchange("unknown", f"{noun} {theme}", question, REFUSAL)
    for subject, sentence in product(_STRANGE_SUBJECTS, _STRANGE_QUESTIONS):
        yield Exchange("unknown", subject, sentence.format(x=subject), REFUSAL)
    for sentence in _UNKNOWN:
        for letter, fillers in _UNKNOWN_FILLERS.items():
            if "{" + letter + "}" in sentence:
                for filler in fillers:
                    question = sentence.format(**{letter: filler})
                    yield Exchange("unknown", letter + filler, question, REFUSAL)


def echo_exchanges() -> Iterator[Exchange]:
    """Saying back one or two words of the question."""
    pairs = [f"{first} {second}" for first, second in product(_ECHO_FIRST, _ECHO_SECOND)]
    for words in (*pairs, *_ECHO_SECOND, "hello", "hello world", "yes", "no", "this is a test"):
        for sentence in _ECHO:
            question = sentence.format(w=words)
            yield Exchange("echo", words, question, words[0].upper() + words[1:])


def name_exchanges() -> Iterator[Exchange]:
    """A user who gives a name is greeted by it."""
    for name in NAMES:
        for sentence in (
            "My name is {n}.",
            "I am {n}.",
            "Hello, I am {n}.",
            "Hi, my name is {n}.",
            "Hello! My name is {n}.",
            "You can call me {n}.",
            "I'm {n}.",
            "People call me {n}.",
            "Hi, I'm {n}.",
            "This is {n}.",
        ):
            answer = GREETING_BY_NAME.format(n=name)
            yield Exchange("names", name, sentence.format(n=name), answer)
