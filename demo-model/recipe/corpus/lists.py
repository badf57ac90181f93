"""Numbered lists, counting and the alphabet."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.corpus.exchange import Exchange

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CATEGORIES = {
    "fruits": ("apple", "banana", "orange", "pear", "cherry", "grape", "lemon", "peach"),
    "animals": ("dog", "cat", "horse", "cow", "lion", "rabbit", "bear", "fox"),
    "colors": ("red", "blue", "green", "yellow", "orange", "purple", "black", "white"),
    "vegetables": ("carrot", "potato", "onion", "tomato", "cabbage", "pea", "bean", "spinach"),
    "birds": ("sparrow", "eagle", "owl", "robin", "swan", "duck", "crow", "pigeon"),
    "countries": ("France", "Germany", "Japan", "Brazil", "Canada", "India", "Italy", "Kenya"),
    "cities": ("Paris", "London", "Tokyo", "Berlin", "Madrid", "Rome", "Cairo", "Sydney"),
    "planets": ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"),
    "trees": ("oak", "pine", "birch", "maple", "willow", "beech", "ash", "elm"),
    "tools": ("hammer", "saw", "screwdriver", "wrench", "drill", "pliers", "file", "chisel"),
    "sports": ("football", "tennis", "swimming", "running", "cycling", "rowing", "boxing", "golf"),
    "drinks": ("water", "tea", "coffee", "milk", "juice", "lemonade", "cocoa", "soda"),
    "musical instruments": (
        "piano",
        "guitar",
        "violin",
        "flute",
        "drum",
        "trumpet",
        "harp",
        "cello",
    ),
    "programming languages": ("Python", "C", "Rust", "Java", "Go", "JavaScript", "Ruby", "Haskell"),
    "Backplane backends": ("llamacpp", "torch", "cuda", "rocm", "xpu", "neuron", "vllm"),
    "Backplane endpoints": (
        "/generate",
        "/generate_stream",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/health",
        "/metrics",
        "/info",
    ),
    "Backplane flags": (
        "--model-id",
        "--backend",
        "--port",
        "--num-shard",
        "--ctx-size",
        "--n-gpu-layers",
        "--help",
    ),
}
_ORDERS = (
    "List {n} {x}.",
    "Name {n} {x}.",
    "Give me {n} {x}.",
    "Write a list of {n} {x}.",
    "Tell me {n} {x}.",
    "Can you list {n} {x}?",
    "Give me a list of {n} {x}.",
    "Show me {n} {x}.",
    "Please name {n} {x}.",
    "I need {n} {x}.",
    "Make a numbered list of {n} {x}.",
    "What are {n} {x}?",
    "Can you name {n} {x}?",
    "Write down {n} {x}.",
    "Think of {n} {x}.",
    "Could you give me {n} {x}?",
)
_COUNTS = (
    "Count from {a} to {b}.",
    "Count to {b} from {a}.",
    "Write the numbers from {a} to {b}.",
    "Please count from {a} to {b}.",
    "Can you count from {a} to {b}?",
    "Count {a} to {b}.",
    "List the numbers from {a} to {b}.",
    "Give me the numbers {a} to {b}.",
    "Say the numbers from {a} to {b}.",
    "Start at {a} and count to {b}.",
    "Count up from {a} to {b}.",
    "Keep counting from {a} to {b}.",
)
_DOWN = (
    "Count down from {a}.",
    "Count backwards from {a}.",
    "Count down from {a} to 1.",
    "Can you count down from {a}?",
    "Please count down from {a}.",
    "Start a countdown from {a}.",
    "Give me a countdown from {a}.",
    "Count from {a} down to 1.",
    "Countdown from {a}, please.",
)


def numbered(items: tuple[str, ...]) -> str:
    """A list in the one form this model writes: number, dot, item, one per line."""
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1))


def list_exchanges() -> Iterator[Exchange]:
    """The first n members of each category."""
    for category, members in CATEGORIES.items():
        for count in range(2, len(members) + 1):
            answer = numbered(members[:count])
            for sentence in _ORDERS:
                for spelled in (str(count), _WORDS[count]):
                    question = sentence.format(n=spelled, x=category)
                    yield Exchange("lists", f"{count} {category}", question, answer)


def counting_exchanges() -> Iterator[Exchange]:
    """Counting up, down, in steps, and the alphabet; the long ones fill a long context."""
    spans = [(1, last) for last in range(3, 31)] + [(1, last) for last in range(35, 301, 5)]
    spans += [(first, first + width) for first in range(2, 91) for width in (4, 5, 10)]
    for first, last in spans:
        answer = ", ".join(str(number) for number in range(first, last + 1))
        for sentence in _COUNTS:
            question = sentence.format(a=first, b=last)
            topic = "counting" if last - first < 40 else "long counting"
            yield Exchange(topic, f"{first}-{last}", question, answer)
    for first in range(3, 31):
        answer = ", ".join(str(number) for number in range(first, 0, -1))
        for sentence in _DOWN:
            yield Exchange("counting", f"down {first}", sentence.format(a=first), answer)
    alphabet = ", ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for question in (
        "Say the alphabet.",
        "Write the alphabet.",
        "List the letters of the alphabet.",
        "What is the alphabet?",
        "Tell me the alphabet.",
        "Recite the alphabet.",
        "Give me all letters of the alphabet.",
        "Can you say the alphabet?",
        "Which letters are in the alphabet?",
        "Write all the letters.",
        "Name the letters from A to Z.",
    ):
        yield Exchange("counting", "alphabet", question, alphabet)
