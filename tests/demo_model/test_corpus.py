"""The training text: repeatable, free of held-out wordings, one answer to each question."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice

import pytest
from recipe.chat_format import Segment
from recipe.corpus.exchange import Exchange, normalized, split
from recipe.corpus.facts import FACTS_FOLDER, fact_exchanges, read_facts
from recipe.corpus.mixture import Mixture, exchanges
from recipe.corpus.phases import PHASES, TOPIC_WEIGHTS
from recipe.corpus.unseen import unseen_exchanges
from tokenizers import Tokenizer

NUM_DOCUMENTS = 4000
USER_TURN = "<|im_start|>user\n"


def text_of(document: list[Segment]) -> str:
    return "".join(segment.text for segment in document)


@pytest.fixture(scope="module", params=PHASES, ids=["language", "exact"])
def documents(request) -> list[str]:
    stream = Mixture(11, request.param).documents()
    return [text_of(document) for document in islice(stream, NUM_DOCUMENTS)]


@pytest.mark.parametrize("phase", PHASES)
def test_the_same_seed_writes_the_same_text(phase):
    first, again, other = (
        [text_of(document) for document in islice(Mixture(seed, phase).documents(), 200)]
        for seed in (11, 11, 12)
    )
    assert first == again
    assert first != other


def test_held_out_questions_do_not_occur_in_the_training_text(documents):
    held_out = {e.question for e in exchanges()[1]} | {e.question for e in unseen_exchanges()}
    training = {normalized(exchange.question) for exchange in exchanges()[0]}
    held_out_wordings = {normalized(question) for question in held_out}
    assert training & held_out_wordings == set()
    asked = [
        piece.split("<|im_end|>")[0]
        for document in documents
        for piece in document.split(USER_TURN)[1:]
    ]
    plain = [
        line.removeprefix("Question: ")
        for document in documents
        if USER_TURN not in document
        for line in document.splitlines()
    ]
    assert len(asked) > NUM_DOCUMENTS / 2
    assert held_out_wordings & {normalized(text) for text in (*asked, *plain)} == set()


def test_every_topic_has_training_and_held_out_questions():
    training, held_out = exchanges()
    assert {exchange.topic for exchange in training} == set(TOPIC_WEIGHTS)
    assert {exchange.topic for exchange in held_out} == set(TOPIC_WEIGHTS) - {"names"}
    assert 0.08 < len(held_out) / len(training) < 0.16


def test_no_question_has_two_answers():
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    training, held_out = exchanges()
    for exchange in (*training, *held_out):
        answers[normalized(exchange.question), exchange.system].add(exchange.answer)
    assert {question for question, found in answers.items() if len(found) > 1} == set()


def test_no_frame_writes_an_unseen_wording():
    written = {normalized(e.question) for e in fact_exchanges("backplane", "serving", "general")}
    unseen = [exchange.question for exchange in unseen_exchanges()]
    assert len(unseen) > 50
    assert [question for question in unseen if normalized(question) in written] == []


def test_documents_fit_the_context_and_some_are_long(documents, shipped_folder):
    tokenizer = Tokenizer.from_file(str(shipped_folder / "tokenizer.json"))
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(documents)]
    assert sum(length > 2048 for length in lengths) < len(lengths) * 0.01
    assert sum(length > 500 for length in lengths) > len(lengths) * 0.015
    assert max(lengths) > 1500


def test_split_keeps_a_wording_out_whatever_its_case_and_punctuation():
    asked = [Exchange("t", "fact", f"Wording {number}?", "yes") for number in range(16)]
    training, held_out = split(asked)
    (first, second) = held_out
    shouted = Exchange("t", "other", first.question.upper().rstrip("?"), "no")
    training_again, held_out_again = split([*asked, shouted])
    assert len(training) == 14
    assert held_out_again == [first, second]
    assert shouted not in training_again


def test_a_fact_file_with_an_unknown_line_is_refused(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_text("what: a thing\nnonsense\n= It is.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="nonsense"):
        read_facts(path)


def test_every_fact_can_be_asked_in_several_ways():
    for topic in ("backplane", "serving", "general"):
        facts = read_facts(FACTS_FOLDER / f"{topic}.txt")
        assert len(facts) > 20
        for fact in facts:
            frames = {frame for frame, _ in fact.subjects}
            assert frames != {"ask"} or len(fact.subjects) >= 5, fact
