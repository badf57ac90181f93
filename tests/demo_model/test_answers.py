"""Greedy answers of the GGUF through llama.cpp: a right export, and facts that are known."""

from __future__ import annotations

import pytest
from llama_cpp import Llama  # noqa: TID253 - this test is about llama.cpp
from recipe.chat_format import turn
from recipe.corpus.exchange import Exchange
from recipe.corpus.mixture import exchanges
from recipe.corpus.stories import tales

QUESTIONS_PER_TOPIC = 12
TOPICS = ("backplane", "serving", "general", "arithmetic", "lists", "json", "tools", "world")
LEAST_EXACT_SHARE = 0.8


@pytest.fixture(scope="module")
def model(gguf_path) -> Llama:
    # One thread: several spin at barriers, and crawl where another process wants the cores.
    return Llama(str(gguf_path), n_ctx=1024, n_threads=1, seed=1, verbose=False)


def greedy_answer(model: Llama, exchange: Exchange) -> str:
    document = turn("system", exchange.system) if exchange.system else []
    document += turn("user", exchange.question)
    prompt = "".join(segment.text for segment in document) + "<|im_start|>assistant\n"
    return model(prompt, max_tokens=200, temperature=0.0)["choices"][0]["text"]


def spread(members: list[Exchange], count: int) -> list[Exchange]:
    return members[:: max(1, len(members) // count)][:count]


def test_held_out_questions_get_exactly_the_right_answer(model):
    held_out = exchanges()[1]
    asked = [
        exchange
        for topic in TOPICS
        for exchange in spread([e for e in held_out if e.topic == topic], QUESTIONS_PER_TOPIC)
    ]
    wrong = [e.question for e in asked if greedy_answer(model, e) != e.answer]
    assert len(asked) == QUESTIONS_PER_TOPIC * len(TOPICS)
    assert len(wrong) <= (1 - LEAST_EXACT_SHARE) * len(asked), wrong


def test_a_long_answer_stays_on_its_path(model):
    exchange = Exchange("stories", "fox", "Tell me a story about a fox.", tales()["fox"])
    assert len(exchange.answer) > 500
    assert greedy_answer(model, exchange) == exchange.answer


def test_a_plain_question_is_continued_with_its_answer(model):
    written = model("What is Backplane?", max_tokens=60, temperature=0.0)["choices"][0]
    assert "one server for large language models" in written["text"]
    assert written["finish_reason"] == "stop"
