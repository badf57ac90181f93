"""The mixture: which documents are drawn, how often, from which topics."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import accumulate

from recipe.chat_format import Segment, raw_text, tools_message, turn
from recipe.corpus.arithmetic import arithmetic_exchanges, comparison_exchanges
from recipe.corpus.exchange import Exchange, normalized, split
from recipe.corpus.facts import fact_exchanges
from recipe.corpus.json_objects import CITIES, NAMES, json_exchanges
from recipe.corpus.lists import counting_exchanges, list_exchanges
from recipe.corpus.phases import PHASES, TOPIC_WEIGHTS, Phase
from recipe.corpus.phrasing import as_typed
from recipe.corpus.smalltalk import (
    GREETING_BY_NAME,
    NAME_UNKNOWN,
    echo_exchanges,
    name_exchanges,
    unknown_exchanges,
)
from recipe.corpus.stories import essay_exchanges, essays, story_exchanges, tales
from recipe.corpus.tools import (
    OFFERS,
    call,
    kind_of,
    tool_exchanges,
    without_tools_exchanges,
)
from recipe.corpus.unseen import unseen_wordings
from recipe.corpus.world import world_exchanges

Document = list[Segment]

_SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are the Backplane demo model.",
    "You are helpful.",
    "Answer the questions of the user.",
    "You are a friendly assistant.",
    "Be brief.",
    "You are a helpful assistant. Answer shortly.",
    "You answer questions about Backplane.",
)
_NAME_TOLD = (
    "My name is {n}.",
    "I am {n}.",
    "Hello, I am {n}.",
    "Hi, my name is {n}.",
    "Hello! My name is {n}.",
    "I'm {n}.",
    "Hi, I'm {n}.",
)
_NAME_ASKED = (
    "What is my name?",
    "Who am I?",
    "Do you remember my name?",
    "Tell me my name.",
    "What was my name?",
    "Do you know my name?",
    "Can you tell me my name?",
)
# The kinds of documents: a single exchange, a short conversation, a long one, a function call with
# its result, a name remembered; the rest is plain text.
_SHARES = (0.645, 0.16, 0.015, 0.03, 0.02)
_MAX_CONVERSATION_CHARACTERS = 5600  # stays under 2,048 tokens; longer ones are cut at a turn


@cache
def exchanges() -> tuple[list[Exchange], list[Exchange]]:
    """(training, held-out) exchanges of all topics."""
    training, held_out = split(
        [
            *fact_exchanges("backplane", "serving", "general"),
            *arithmetic_exchanges(),
            *comparison_exchanges(),
            *list_exchanges(),
            *counting_exchanges(),
            *json_exchanges(),
            *world_exchanges(),
            *story_exchanges(),
            *essay_exchanges(),
            *tool_exchanges(),
            *without_tools_exchanges(),
            *unknown_exchanges(),
            *echo_exchanges(),
            *name_exchanges(),
        ]
    )
    unseen = unseen_wordings()
    # Mixture tells and asks for names in all wordings, so none of those counts as held out.
    return (
        [e for e in training if normalized(e.question) not in unseen],
        [e for e in held_out if e.topic != "names" and e.answer != NAME_UNKNOWN],
    )


def _about_a_person(draw: random.Random) -> str:
    name, city, friend = draw.choice(NAMES), draw.choice(CITIES), draw.choice(NAMES)
    like, other = draw.sample(("music", "books", "the sea", "long walks", "good food", "games"), 2)
    return (
        f"My name is {name} and I live in {city}. I like {like} and {other}. "
        f"My best friend is {friend}, and we often talk about {like}."
    )


class Mixture:
    """An endless, seeded stream of documents; every fact of a topic is drawn equally often."""

    def __init__(self, seed: int, phase: Phase = PHASES[0]) -> None:
        self._draw = random.Random(seed)
        self._weights = phase.topic_weights
        grouped: dict[str, dict[str, list[Exchange]]] = defaultdict(lambda: defaultdict(list))
        for exchange in exchanges()[0]:
            grouped[exchange.topic][exchange.key].append(exchange)
        self._topics = {topic: list(keys.values()) for topic, keys in grouped.items()}
        self._tool_questions: dict[tuple[str, str], list[Exchange]] = defaultdict(list)
        for exchange in exchanges()[0]:
            if exchange.topic == "tools":
                self._tool_questions[exchange.system, exchange.answer].append(exchange)
        # Inside a conversation, names are for _remembered_name alone: it keeps them consistent.
        self._plain = [topic for topic in TOPIC_WEIGHTS if topic not in {"tools", "names"}]
        self._texts = [*tales().values(), *essays().values()]

    def documents(self) -> Iterator[Document]:
        """Single exchanges, conversations of all lengths, and plain text."""
        single, short, long, call_and_result, name = accumulate(_SHARES)
        while True:
            roll = self._draw.random()
            if roll < single:
                yield self._single()
            elif roll < short:
                yield self._conversation(self._draw.randint(2, 5))
            elif roll < long:
                yield self._conversation(40)
            elif roll < call_and_result:
                yield self._tool_conversation()
            elif roll < name:
                yield self._remembered_name()
            else:
                yield self._plain_text()

    def _exchange(self, topics: list[str]) -> Exchange:
        weights = [self._weights[topic] for topic in topics]
        topic = self._draw.choices(topics, weights)[0]
        return self._draw.choice(self._draw.choice(self._topics[topic]))

    def _turns(self, exchange: Exchange) -> Document:
        question = as_typed(exchange.question, self._draw)
        return [*turn("user", question), *turn("assistant", exchange.answer)]

    def _system(self, needed: str) -> Document:
        if needed:
            lead = self._draw.choice(_SYSTEM_MESSAGES) + "\n\n" if self._draw.random() < 0.3 else ""
            return turn("system", lead + needed)
        if self._draw.random() < 0.2:
            return turn("system", self._draw.choice(_SYSTEM_MESSAGES))
        return []

    def _single(self) -> Document:
        exchange = self._exchange(list(TOPIC_WEIGHTS))
        return [*self._system(exchange.system), *self._turns(exchange)]

    def _conversation(self, num_turns: int) -> Document:
        document = self._system("")
        num_characters = 0
        for _ in range(num_turns):
            exchange = self._exchange(self._plain)
            num_characters += len(exchange.question) + len(exchange.answer) + 40
            if num_characters > _MAX_CONVERSATION_CHARACTERS:
                break
            document += self._turns(exchange)
        return document

    def _tool_conversation(self) -> Document:
        """A call, its result, and the sentence made of it; or a question that needs no call."""
        draw = self._draw
        offer = draw.choice(OFFERS)
        document = self._system(tools_message(offer))
        if draw.random() < 0.4:
            return document + self._turns(self._exchange(["general", "backplane", "arithmetic"]))
        tool = draw.choice(offer)
        city = draw.choice(CITIES)
        training = self._tool_questions[tools_message(offer), call(tool, city)]
        document += self._turns(draw.choice(training))
        if kind_of(tool) == "weather":
            sky = draw.choice(("sunny", "cloudy", "rainy", "windy"))
            degrees = draw.randint(-5, 35)
            result = f'{{"weather": "{sky}", "temperature": {degrees}}}'
            answer = f"It is {sky} in {city}, with {degrees} degrees."
        else:
            clock = f"{draw.randint(0, 23):02}:{draw.randint(0, 59):02}"
            result, answer = f'{{"time": "{clock}"}}', f"It is {clock} in {city}."
        return [*document, *turn("tool", result), *turn("assistant", answer)]

    def _remembered_name(self) -> Document:
        """A name is told, other things are talked about, and the name is asked for."""
        name = self._draw.choice(NAMES)
        told = self._draw.choice(_NAME_TOLD).format(n=name)
        asked = self._draw.choice(_NAME_ASKED)
        document = [*self._system(""), *turn("user", told)]
        document += turn("assistant", GREETING_BY_NAME.format(n=name))
        for _ in range(self._draw.randint(0, 4)):
            exchange = self._exchange(self._plain)
            if exchange.answer != NAME_UNKNOWN:
                document += self._turns(exchange)
        return [*document, *turn("user", asked), *turn("assistant", f"Your name is {name}.")]

    def _plain_text(self) -> Document:
        draw = self._draw
        roll = draw.random()
        if roll < 0.12:
            return raw_text(draw.choice(self._texts))
        if roll < 0.20:
            return raw_text(_about_a_person(draw))
        exchange = self._exchange(self._plain)
        if roll < 0.45:
            return raw_text(f"{exchange.question}\n{exchange.answer}")
        if roll < 0.70:
            return raw_text(f"Question: {exchange.question}\nAnswer: {exchange.answer}")
        if roll < 0.80:
            return raw_text(f"{exchange.question} {exchange.answer}")
        sentences = [self._exchange(["backplane", "serving"]).answer for _ in range(3)]
        return raw_text(" ".join(sentences))
