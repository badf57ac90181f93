"""What TGI's two k6 scripts ask for: how many users, how many requests, how long, which texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conversations import long_question, short_question

MAX_TOKENS = 50
TEMPERATURE = 0


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A closed loop: `vus` users share `iterations` requests and start none past `duration_s`."""

    name: str
    summary: str
    vus: int
    iterations: int
    duration_s: float
    question: Callable[[int, int], str]
    num_words: int


COMMON = Scenario(
    name="common",
    summary="a hundred users with short questions",
    vus=100,
    iterations=200,
    duration_s=40.0,
    question=short_question,
    num_words=60,
)
LONG = Scenario(
    name="long",
    summary="ten users with a document each",
    vus=10,
    iterations=10,
    duration_s=120.0,
    question=long_question,
    num_words=4000,
)
SCENARIOS = {scenario.name: scenario for scenario in (COMMON, LONG)}
