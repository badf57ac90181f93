"""First turns of conversations, made of our own words: the same number gives the same text.

TGI's scripts read files of foreign conversations; these need none, and no two questions of a run
begin alike, so a prefix cache saves no more than the template's own tokens.
"""

from __future__ import annotations

import random

_THINGS = (
    "a scheduler", "a queue", "a batch", "a token", "a prompt", "a server", "a worker", "a cache",
    "a model", "a stream", "a request", "an adapter", "a device", "a kernel", "a socket", "a key",
)  # fmt: skip
_DEEDS = (
    "starts", "waits for", "answers", "splits", "copies", "measures", "replaces", "reads",
    "counts", "refuses", "repeats", "merges", "forgets", "sends", "holds", "follows",
)  # fmt: skip
_TIMES = (
    "at first", "in the end", "once a second", "under load", "after a restart", "on two cores",
    "while others wait", "when memory is short", "before the first token", "without being asked",
)  # fmt: skip
_ASKS = (
    "What does that mean for a user?",
    "Say it in one sentence.",
    "Which of these would you change?",
    "What happens next?",
    "Is that right?",
)


def _sentence(draw: random.Random) -> str:
    text = f"{draw.choice(_THINGS)} {draw.choice(_DEEDS)} {draw.choice(_THINGS)}"
    return f"{text} {draw.choice(_TIMES)}.".capitalize()


def _text(draw: random.Random, num_words: int) -> str:
    sentences: list[str] = []
    words = 0
    while words < num_words:
        sentences.append(_sentence(draw))
        words += sentences[-1].count(" ") + 1
    return " ".join(sentences)


def short_question(number: int, num_words: int) -> str:
    """A few sentences and a question. Lengths vary up to `num_words`, as people's do."""
    draw = random.Random(number)  # noqa: S311 -- no secret: the same run again
    length = draw.randint(1, max(1, num_words))
    return f"Case {number}. {_text(draw, length)} {draw.choice(_ASKS)}"


def long_question(number: int, num_words: int) -> str:
    """A document of about `num_words` words to be summed up."""
    draw = random.Random(number)  # noqa: S311 -- likewise
    return f"Report {number}.\n\n{_text(draw, num_words)}\n\nSum up the report in one sentence."
