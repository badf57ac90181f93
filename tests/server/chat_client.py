"""Asks chats for answers with tools and thoughts, and puts streams together as clients do.

The echo says what the last message says, so that message holds the markup of the answer.
"""

import json
import re

PATH = "/v1/chat/completions"
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools|tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.id }}:{{ c.function.name }}"
    "{{ c.function.arguments|tojson }}]{% endfor %}"
    "{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{% if m.tool_call_id %}#{{ m.tool_call_id }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"about {name}",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("weather", "time")
]
FUNCTIONS = [tool["function"] for tool in TOOLS]
CALL_ID = re.compile(r"call_[0-9a-f]{24}")


def call(name, **arguments):
    text = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{text}\n</tool_call>"


def ask(stack, text, **fields):
    messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
    response = stack.post(PATH, {"messages": messages, "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def without_ids(value):
    """Calls' ids are fresh each time: looked at, and left out."""
    if isinstance(value, list):
        return [without_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "function" in value and "id" in value:
        assert CALL_ID.fullmatch(value["id"])
    return {name: without_ids(item) for name, item in value.items() if name != "id"}


def joined(stack, text, **fields):
    """A stream's choices, put together as a client does it, and the chunks' deltas."""
    messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
    body = {"messages": messages, "temperature": 0, "stream": True, **fields}
    _, events = stack.events(PATH, body)
    assert events[-1] == "[DONE]"
    whole = {}
    for event in events[:-1]:
        for choice in event["choices"]:
            mine = whole.setdefault(choice["index"], {"message": {}, "finish_reason": None})
            assert mine["finish_reason"] is None, "nothing follows the end"
            mine["finish_reason"] = choice["finish_reason"]
            add(mine["message"], choice["delta"])
    return [whole[index] for index in sorted(whole)], events


def add(message, delta):
    for name in ("content", "reasoning_content"):
        if delta.get(name) is not None:
            message[name] = (message.get(name) or "") + delta[name]
        elif name in delta:
            message.setdefault(name, None)
    if "role" in delta:
        assert "role" not in message
        message["role"] = delta["role"]
    for news in delta.get("tool_calls", []):
        calls = message.setdefault("tool_calls", [])
        if news["index"] == len(calls):
            assert set(news) == {"index", "id", "type", "function"}
            assert news["function"]["arguments"] == ""
            function = dict(news["function"])
            calls.append({"id": news["id"], "type": news["type"], "function": function})
        else:
            assert set(news) == {"index", "function"}
            assert set(news["function"]) == {"arguments"}
            calls[-1]["function"]["arguments"] += news["function"]["arguments"]
    if "function_call" in delta:
        function = message.setdefault("function_call", {"arguments": ""})
        function["arguments"] += delta["function_call"]["arguments"]
        if "name" in delta["function_call"]:
            function["name"] = delta["function_call"]["name"]
