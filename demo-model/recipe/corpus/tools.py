"""Function calls: the functions on offer stand in the system message, results come back as tool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, product
from typing import Any

from recipe.chat_format import tools_message
from recipe.corpus.exchange import Exchange
from recipe.corpus.json_objects import CITIES

Tool = dict[str, Any]


def _function(name: str, description: str, **properties: str) -> Tool:
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


_PLACES = ("city", "location", "place")
_WEATHER_NAMES = ("get_weather", "get_current_weather", "weather", "fetch_weather")
_TIME_NAMES = ("get_time", "get_local_time", "current_time")
_DESCRIPTIONS = {
    "weather": ("Get the weather in a city.", "Get the current weather", "Tells the weather."),
    "time": ("Get the local time in a city.", "Get the current time", "Tells the time."),
}


def _offered(kind: str, names: tuple[str, ...]) -> list[Tool]:
    descriptions = cycle(_DESCRIPTIONS[kind])
    return [
        _function(name, next(descriptions), **{place: "string"})
        for name, place in product(names, _PLACES)
    ]


_WEATHER = _offered("weather", _WEATHER_NAMES)
_TIME = _offered("time", _TIME_NAMES)
OFFERS = (
    *([tool] for tool in _WEATHER),
    *([tool] for tool in _TIME),
    *([weather, time] for weather, time in zip(_WEATHER, cycle(_TIME), strict=False)),
    *([time, weather] for time, weather in zip(_TIME, _WEATHER, strict=False)),
)
_ASKED = {
    "weather": (
        "What is the weather in {c}?",
        "How is the weather in {c}?",
        "What's the weather like in {c}?",
        "Tell me the weather in {c}.",
        "Is it raining in {c}?",
        "Is it warm in {c}?",
        "Give me the weather for {c}.",
        "What is the weather like in {c} today?",
        "Check the weather in {c}.",
        "How is the weather in {c} today?",
    ),
    "time": (
        "What time is it in {c}?",
        "What is the time in {c}?",
        "Tell me the time in {c}.",
        "How late is it in {c}?",
        "What is the local time in {c}?",
        "Give me the time in {c}.",
        "Which time is it in {c} now?",
        "What time is it now in {c}?",
        "Check the time in {c}.",
        "Do you know the time in {c}?",
    ),
}


def kind_of(tool: Tool) -> str:
    """Which of the two questions a function answers: weather or time."""
    return "weather" if tool in _WEATHER else "time"


def call(tool: Tool, city: str) -> str:
    """The text of a call of `tool` for a city, as the chat template writes it too."""
    function = tool["function"]
    (place,) = function["parameters"]["properties"]
    arguments = {"name": function["name"], "arguments": {place: city}}
    return f"<tool_call>{json.dumps(arguments)}</tool_call>"


def questions_for(tool: Tool, city: str) -> list[str]:
    """The wordings of the question that a call of `tool` for a city answers."""
    return [sentence.format(c=city) for sentence in _ASKED[kind_of(tool)]]


def tool_exchanges() -> Iterator[Exchange]:
    """A question that one of the offered functions answers: the answer is the call."""
    for number, offer in enumerate(OFFERS):
        system = tools_message(offer)
        for tool, city in product(offer, CITIES):
            key = f"{number} {kind_of(tool)} {city}"
            for question in questions_for(tool, city):
                yield Exchange("tools", key, question, call(tool, city), system)


def without_tools_exchanges() -> Iterator[Exchange]:
    """The same questions with no function on offer."""
    answers = {
        "weather": "I cannot see the weather. Give me a tool for it, and I will call it.",
        "time": "I cannot see a clock. Give me a tool for it, and I will call it.",
    }
    for kind, city in product(_ASKED, CITIES):
        for sentence in _ASKED[kind]:
            yield Exchange("no tools", f"{kind} {city}", sentence.format(c=city), answers[kind])
