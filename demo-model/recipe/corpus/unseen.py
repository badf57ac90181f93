"""Questions in free wordings that no sentence frame writes: for evaluation, never for training."""

from __future__ import annotations

from recipe.corpus.exchange import Exchange, normalized
from recipe.corpus.facts import FACTS_FOLDER, read_facts


def unseen_exchanges() -> list[Exchange]:
    """The questions of facts/unseen/*.txt, each with the answer of the fact that it names.

    Raises:
        KeyError: a `fact:` line names no subject of facts/<topic>.txt.
    """
    answers = {
        subject: fact.answer
        for topic in ("backplane", "serving", "general")
        for fact in read_facts(FACTS_FOLDER / f"{topic}.txt")
        for _, subject in fact.subjects
    }
    found: list[Exchange] = []
    for line in (FACTS_FOLDER / "unseen_wordings.tsv").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            subject, question = line.split("\t")
            found.append(Exchange("unseen wordings", subject, question, answers[subject]))
    return found


def unseen_wordings() -> set[str]:
    """The questions in normal form, which training leaves out."""
    return {normalized(exchange.question) for exchange in unseen_exchanges()}
