"""Function calls: the functions on offer stand in the system message, results come back as tool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product

from recipe.chat_format import tools_message
from recipe.corpus.exchange import Exchange
from recipe.corpus.json_objects import CITIES


def _function(name: str, description: str, **properties: str) -> dict[str, object]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in properties.items()},
                "required": list(properties),
            },
        },
    }


WEATHER = _function("get_weather", "Get the weather in a city.", city="string")
TIME = _function("get_time", "Get the local time in a city.", city="string")
OFFERS = ([WEATHER], [TIME], [WEATHER, TIME], [TIME, WEATHER])
_ASKED = {
    "get_weather": (
        "What is the weather in {c}?", "How is the weather in {c}?", "What's the weather like in {c}?",
        "Tell me the weather in {c}.", "Is it raining in {c}?", "Is it warm in {c}?",
        "Give me the weather for {c}.", "What is the weather like in {c} today?",
        "Check the weather in {c}.", "How is the weather in {c} today?",
    ),
    "get_time": (
        "What time is it in {c}?", "What is the time in {c}?", "Tell me the time in {c}.",
        "How late is it in {c}?", "What is the local time in {c}?", "Give me the time in {c}.",
        "Which time is it in {c} now?", "What time is it now in {c}?", "Check the time in {c}.",
        "Do you know the time in {c}?",
    ),
}


def call(name: str, **arguments: object) -> str:
    """The text of a tool call, as the chat template writes it too."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def tool_exchanges() -> Iterator[Exchange]:
    """A question that one of the offered functions answers: the answer is the call."""
    for offer in OFFERS:
        system = tools_message(offer)
        names = {str(tool["function"]["name"]) for tool in offer}
        for name, city in product(sorted(names), CITIES):
            for sentence in _ASKED[name]:
                question = sentence.format(c=city)
                key = f"{len(offer)} {name} {city} {offer[0]['function']['name']}"
                yield Exchange("tools", key, question, call(name, city=city), system)


def without_tools_exchanges() -> Iterator[Exchange]:
    """The same questions with no function on offer."""
    answers = {
        "get_weather": "I cannot see the weather. Give me a tool for it, and I will call it.",
        "get_time": "I cannot see a clock. Give me a tool for it, and I will call it.",
    }
    for name, city in product(_ASKED, CITIES):
        for sentence in _ASKED[name]:
            yield Exchange("no tools", f"{name} {city}", sentence.format(c=city), answers[name])
