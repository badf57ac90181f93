"""A question with its one right answer, and the split into training and held-out questions."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

# One question in this many is held out, of each fact that is asked in at least as many ways.
HOLD_OUT_ONE_IN = 8


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its canonical answer.

    `key` names the fact: exchanges with the same key are paraphrases of one another.
    `system` is the text of the system message that the question depends on, if any.
    """

    topic: str
    key: str
    question: str
    answer: str
    system: str = ""


def normalized(question: str) -> str:
    """The question without case and punctuation: what counts as the same wording."""
    return " ".join(re.findall(r"[\w/+*<>=-]+", question.lower()))


def _rank(exchange: Exchange) -> str:
    return hashlib.sha256(normalized(exchange.question).encode()).hexdigest()


def split(exchanges: Iterable[Exchange]) -> tuple[list[Exchange], list[Exchange]]:
    """(training, held-out). A held-out wording never occurs in training, for any fact."""
    by_key: dict[tuple[str, str], dict[str, Exchange]] = defaultdict(dict)
    for exchange in exchanges:
        wording = normalized(exchange.question) + "\n" + exchange.system
        by_key[exchange.topic, exchange.key].setdefault(wording, exchange)
    training: list[Exchange] = []
    held_out: list[Exchange] = []
    for wordings in by_key.values():
        ranked = sorted(wordings.values(), key=_rank)
        num_held_out = len(ranked) // HOLD_OUT_ONE_IN
        held_out.extend(ranked[:num_held_out])
        training.extend(ranked[num_held_out:])
    taken = {normalized(exchange.question) for exchange in held_out}
    return [e for e in training if normalized(e.question) not in taken], held_out
