"""All kinds of requests at a time, some of them wrong and some given up: none disturbs another."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
from contract.wire import CHAT, COMPLETIONS, TIMEOUT_S, answered, user
from deployment import Deployment, wait_until

GREEDY = {"temperature": 0, "max_tokens": 40}
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["age"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "age", "schema": SCHEMA}}
PING = {"type": "function", "function": {"name": "ping"}}
ANNA = "Give me a JSON object for Anna, who is 17 years old."


def obeys(text: str) -> bool:
    return 0 <= json.loads(text)["age"] <= 99


def calls_ping(message: dict[str, Any]) -> bool:
    return {call["function"]["name"] for call in message["tool_calls"]} == {"ping"}


# What is asked. The model is sure of what has no rule, so it says what it says alone; of the rest
# it is not, and a batch's rounding may tip it, but the rule holds.
ASKED: list[tuple[str, dict[str, Any], Callable[[Any], object] | None]] = [
    (CHAT, {**GREEDY, "messages": user("What is Backplane?")}, None),
    (CHAT, {**GREEDY, "messages": user("What is a GGUF file?"), "logprobs": True}, None),
    (CHAT, {**GREEDY, "messages": user(ANNA), "response_format": {"type": "json_object"}}, None),
    (
        CHAT,
        {**GREEDY, "messages": user("hello"), "response_format": FORMAT},
        lambda answer: obeys(answer["choices"][0]["message"]["content"]),
    ),
    (
        CHAT,
        {**GREEDY, "messages": user("hello"), "tools": [PING], "tool_choice": "required"},
        lambda answer: calls_ping(answer["choices"][0]["message"]),
    ),
    (
        COMPLETIONS,
        {**GREEDY, "prompt": ["A server", "A worker"], "guided_choice": ["yes", "no"]},
        lambda answer: {one["text"] for one in answer["choices"]} <= {"yes", "no"},
    ),
    (
        "/generate",
        {"inputs": "1", "parameters": {"grammar": {"type": "regex", "value": "[0-9]( [0-9]){4}"}}},
        lambda answer: re.fullmatch("[0-9]( [0-9]){4}", answer["generated_text"]),
    ),
    (
        "/generate",
        {"inputs": "x", "parameters": {"max_new_tokens": 9, "do_sample": True, "details": True}},
        lambda answer: answer["details"]["generated_tokens"] <= 9,
    ),
]
WRONG: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {**GREEDY, "messages": user("x"), "response_format": {"type": "poem"}}),
    ("/generate", {"inputs": "", "parameters": {}}),
    (COMPLETIONS, {"prompt": "x", "temperature": -1}),
]
ROUNDS = 4


async def ask(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    return await client.post(path, json=body)


async def give_up(client: httpx.AsyncClient) -> None:
    """Begin a long stream, read a little, and leave."""
    body = {"inputs": "Tell me a story", "parameters": {"max_new_tokens": 400, "top_k": 50}}
    async with client.stream("POST", "/generate_stream", json=body) as stream:
        async for _ in stream.aiter_bytes():
            return


async def test_a_mixture_leaves_each_its_own_answer(demo: Deployment):
    alone = [answered(demo, path, body) for path, body, _ in ASKED]
    before = {
        name: demo.metric(name)
        for name in ("tgi_request_count", "tgi_request_success", "tgi_request_failure")
    }
    async with httpx.AsyncClient(base_url=demo.url, timeout=TIMEOUT_S) as client:
        asked = [*range(len(ASKED))] * ROUNDS
        answers, refusals, _ = await asyncio.gather(
            asyncio.gather(*(ask(client, *ASKED[number][:2]) for number in asked)),
            asyncio.gather(*(ask(client, *wrong) for wrong in WRONG * ROUNDS)),
            asyncio.gather(*(give_up(client) for _ in range(ROUNDS))),
        )
    assert {refusal.status_code for refusal in refusals} == {422}
    wait_until(lambda: demo.metric("tgi_batch_current_size") == 0, 20, "nothing runs")
    assert demo.metric("tgi_queue_size") == 0
    for number, answer in zip(asked, answers, strict=True):
        assert answer.status_code == 200, answer.text
        rule = ASKED[number][2]
        if rule is None:
            said = [one["message"]["content"] for one in answer.json()["choices"]]
            assert said == [one["message"]["content"] for one in alone[number]["choices"]]
        else:
            assert rule(answer.json()), answer.text
    grown = {name: demo.metric(name) - value for name, value in before.items()}
    num_wrong, num_given_up = len(WRONG) * ROUNDS, ROUNDS
    assert grown["tgi_request_count"] == len(asked) + num_wrong + num_given_up
    assert grown["tgi_request_success"] == len(asked)
    assert grown["tgi_request_failure"] == num_wrong + num_given_up
