"""Facts written down by hand in facts/*.txt, asked in every frame that fits them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipe.corpus.exchange import Exchange, normalized
from recipe.corpus.phrasing import FRAMES

FACTS_FOLDER = Path(__file__).resolve().parents[2] / "facts"


@dataclass(frozen=True, slots=True)
class Fact:
    """One answer and the subjects by which it can be asked: (frame, subject) pairs."""

    subjects: tuple[tuple[str, str], ...]
    answer: str


def read_facts(path: Path) -> list[Fact]:
    """The facts of one file; the format is described in facts/README.md.

    Raises:
        ValueError: a line that is neither a comment, a known frame nor an answer.
    """
    facts: list[Fact] = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        subjects: list[tuple[str, str]] = []
        answer = ""
        for line in block.splitlines():
            frame, colon, rest = line.partition(": ")
            if line.startswith("= "):
                answer = line[2:].replace("\\n", "\n")
            elif colon and frame in FRAMES:
                subjects += [(frame, subject.strip()) for subject in rest.split(" | ")]
            elif line and not line.startswith("#"):
                raise ValueError(f"{path.name}: cannot read the line {line!r}")
        if subjects and answer:
            facts.append(Fact(tuple(subjects), answer))
    return facts


def _questions(fact: Fact, asked: frozenset[str]) -> Iterator[str]:
    """All wordings; a frame never writes what some fact is asked by in so many words."""
    for frame, subject in fact.subjects:
        for sentence in FRAMES[frame]:
            question = sentence.format(x=subject)
            if frame == "ask" or normalized(question) not in asked:
                yield question[0].upper() + question[1:]


def fact_exchanges(*topics: str) -> Iterator[Exchange]:
    """Every question about the facts of facts/<topic>.txt."""
    facts = [
        (topic, fact) for topic in topics for fact in read_facts(FACTS_FOLDER / f"{topic}.txt")
    ]
    asked = frozenset(
        normalized(subject)
        for _, fact in facts
        for frame, subject in fact.subjects
        if frame == "ask"
    )
    for topic, fact in facts:
        for question in _questions(fact, asked):
            yield Exchange(topic, fact.answer, question, fact.answer)
