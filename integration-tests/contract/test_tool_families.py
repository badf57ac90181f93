"""Each family's way of writing calls, and thoughts, as a client gets them: whole and streamed.

Echo says what it is told to, so what a model of the family would write is the user's message.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from contract.conftest import ECHO, kept
from contract.wire import CHAT, DONE, answered, streamed, user
from deployment import Deployment

# Echo's own format, in which tools stand where echo does not repeat them.
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("weather", "clock")
]
TWO = [("weather", {"city": "Rome", "days": 2}), ("clock", {"zone": None})]
# Family → what its models write for the two calls.
WRITTEN = {
    "hermes": (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>\n'
        '<tool_call>\n{"name": "clock", "arguments": {"zone": null}}\n</tool_call>'
    ),
    "mistral": (
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome", "days": 2}}, '
        '{"name": "clock", "arguments": {"zone": null}}]'
    ),
    "llama3_json": (
        '{"name": "weather", "parameters": {"city": "Rome", "days": 2}}; '
        '{"name": "clock", "parameters": {"zone": null}}'
    ),
    "pythonic": '[weather(city="Rome", days=2), clock(zone=None)]',
    "json": (
        '[{"name": "weather", "arguments": {"city": "Rome", "days": 2}}, '
        '{"name": "clock", "arguments": {"zone": null}}]'
    ),
}
WORDS = "There are no calls in this: just a <b>tag</b>, a [list] and {braces}."


@pytest.fixture(scope="module", params=WRITTEN)
def family(request, tmp_path_factory) -> Iterator[tuple[str, Deployment]]:
    template = tmp_path_factory.mktemp("template") / "tools.jinja"
    template.write_text(TEMPLATE)
    arguments = ("--tool-call-parser", request.param, "--chat-template", str(template))
    with kept(*ECHO, *arguments) as deployment:
        yield request.param, deployment


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": user(text), "temperature": 0, "tools": TOOLS, **more}


def calls_of(stream: list[Any]) -> tuple[list[tuple[str, Any]], str, str]:
    """Name and arguments of each call in a stream; its text; its finish reason."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    text, reason = "", ""
    for chunk in stream:
        if chunk == DONE:
            continue
        (choice,) = chunk["choices"]
        text += choice["delta"].get("content") or ""
        reason = choice["finish_reason"] or reason
        for call in choice["delta"].get("tool_calls") or []:
            index = call["index"]
            if name := call["function"].get("name"):
                assert index not in names, "a name comes once"
                assert call["id"]
                names[index] = name
            arguments[index] = arguments.get(index, "") + call["function"].get("arguments", "")
    assert list(names) == list(range(len(names)))
    return [(names[index], json.loads(arguments[index])) for index in names], text, reason


def test_calls_are_read(family):
    name, deployment = family
    (choice,) = answered(deployment, CHAT, body(WRITTEN[name]))["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls", message
    calls = [call["function"] for call in message["tool_calls"]]
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == TWO
    assert not message["content"]
    assert len({call["id"] for call in message["tool_calls"]}) == 2


def test_calls_stream(family):
    name, deployment = family
    calls, text, reason = calls_of(streamed(deployment, CHAT, body(WRITTEN[name], stream=True)))
    assert (calls, text.strip(), reason) == (TWO, "", "tool_calls")


def test_one_call_where_one_is_wanted(family):
    name, deployment = family
    asked = body(WRITTEN[name], parallel_tool_calls=False)
    (choice,) = answered(deployment, CHAT, asked)["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]
    streamed_calls, text, _ = calls_of(streamed(deployment, CHAT, {**asked, "stream": True}))
    assert streamed_calls == TWO[:1]
    assert text.strip() == ""


def test_words_are_words(family):
    _, deployment = family
    (choice,) = answered(deployment, CHAT, body(WORDS))["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (WORDS, "stop")
    assert "tool_calls" not in choice["message"]
    calls, text, reason = calls_of(streamed(deployment, CHAT, body(WORDS, stream=True)))
    assert (calls, text, reason) == ([], WORDS, "stop")


def test_nothing_is_read_where_no_tools_are(family):
    name, deployment = family
    asked = {"messages": user(WRITTEN[name]), "temperature": 0}
    (choice,) = answered(deployment, CHAT, asked)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (WRITTEN[name], "stop")


@pytest.fixture(scope="module")
def thinking() -> Iterator[Deployment]:
    with kept(*ECHO, "--reasoning-parser", "qwen3") as deployment:
        yield deployment


@pytest.mark.parametrize(
    ("said", "thought", "answer"),
    [
        ("<think>first this</think>then that", "first this", "then that"),
        ("no thoughts", None, "no thoughts"),
        ("<think>never done", "never done", None),
    ],
    ids=["both", "answer", "thought"],
)
def test_thoughts_come_apart(thinking, said, thought, answer):
    asked = {"messages": user(said), "temperature": 0}
    whole = answered(thinking, CHAT, asked)
    message = whole["choices"][0]["message"]
    assert message.get("reasoning_content") == thought
    assert (message["content"] or None) == answer
    if thought:
        assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] >= len(thought)
    chunks = streamed(thinking, CHAT, {**asked, "stream": True})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk != DONE]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == (thought or "")
    assert "".join(delta.get("content") or "" for delta in deltas) == (answer or "")


def test_thoughts_are_text_without_the_flag(echo):
    said = "<think>first this</think>then that"
    answer = answered(echo, CHAT, {"messages": user(said), "temperature": 0})
    assert answer["choices"][0]["message"]["content"] == said
