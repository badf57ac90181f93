"""The phases of training: which topics are drawn how often, at first and then."""

from __future__ import annotations

from dataclasses import dataclass

# How often each topic is drawn: first to learn the language and the facts ...
TOPIC_WEIGHTS = {
    "backplane": 30.0,
    "serving": 18.0,
    "general": 9.0,
    "arithmetic": 12.0,
    "comparison": 4.0,
    "lists": 6.0,
    "counting": 3.0,
    "long counting": 0.6,
    "json": 6.0,
    "world": 8.0,
    "stories": 3.0,
    "essays": 1.0,
    "tools": 5.0,
    "no tools": 1.0,
    "unknown": 5.0,
    "echo": 3.0,
    "names": 1.0,
}
# ... and then with more weight on what must be copied or recalled to the letter.
EXACT_TOPIC_WEIGHTS = {
    **TOPIC_WEIGHTS,
    "backplane": 26.0,
    "serving": 15.0,
    "arithmetic": 20.0,
    "comparison": 6.0,
    "lists": 8.0,
    "long counting": 0.2,
    "world": 12.0,
    "stories": 1.0,
    "essays": 0.3,
    "tools": 8.0,
    "unknown": 3.0,
    "echo": 5.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """So many steps (None: all that are left) with these weights of the topics."""

    num_steps: int | None
    topic_weights: dict[str, float]


PHASES = (
    Phase(num_steps=600, topic_weights=TOPIC_WEIGHTS),
    Phase(num_steps=None, topic_weights=EXACT_TOPIC_WEIGHTS),
)
