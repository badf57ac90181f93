"""What models think before they answer, told apart from it."""

import json

import pytest

from tests.server.chat_client import PATH, TEMPLATE, TOOLS, ask, call, joined


@pytest.fixture(scope="module")
def thinking(stack_module):
    with stack_module.Stack(
        chat_template=TEMPLATE, tool_call_parser="hermes", reasoning_parser="qwen3"
    ) as running:
        yield running


def test_thoughts_are_told_apart_and_counted(thinking):
    answer = ask(thinking, "<think>hm</think>\n\nYes.")
    message = answer["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"}
    details = answer["usage"]["completion_tokens_details"]
    assert details == {"reasoning_tokens": len("<think>hm</think>")}
    body = {
        "messages": [{"role": "user", "content": "<think>hm</think>\n\nYes."}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    _, events = thinking.events(PATH, body)
    assert events[-2]["usage"]["completion_tokens_details"] == details
    deltas = [event["choices"][0]["delta"] for event in events[:-2]]
    assert deltas[:3] == [
        {"role": "assistant", "content": None},
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
    ]
    plain = ask(thinking, "Yes.")
    assert "reasoning_content" not in plain["choices"][0]["message"]
    assert plain["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


@pytest.fixture(scope="module", params=["qwen3", "deepseek_r1"])
def opened(stack_module, request):
    """A template that opens the thinking itself."""
    template = TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    with stack_module.Stack(chat_template=template, reasoning_parser=request.param) as running:
        yield running


def test_thinking_that_the_template_opened(opened):
    [choice] = ask(opened, "hm\n</think>\nYes.")["choices"]
    message = choice["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "Yes.")
    [part], _ = joined(opened, "hm\n</think>\nYes.")
    assert part["message"] == message
    text = 'hm</think>{"a":1}'
    [choice] = ask(opened, text, response_format={"type": "json_object"})["choices"]
    assert choice["message"]["reasoning_content"] == "hm"
    assert json.loads(choice["message"]["content"]) == {"a": 1}


@pytest.mark.parametrize(
    ("begun", "said", "reasoning", "content"),
    [
        ("The answer", " is x.", None, " is x."),
        ("<think>so", " on</think>x.", "on", "x."),
        ("<think>so</think>The answer", " is x.", None, " is x."),
    ],
)
def test_a_turn_is_continued_where_its_thinking_was(opened, begun, said, reasoning, content):
    history = [{"role": "user", "content": said}, {"role": "assistant", "content": begun}]
    message = ask(opened, history)["choices"][0]["message"]
    assert message.get("reasoning_content") == reasoning
    assert message["content"] == content


def test_before_an_enforced_call_there_may_be_thoughts(thinking):
    text = "<think>who?</think>" + call("time")
    [choice] = ask(thinking, text, tools=TOOLS, tool_choice="required")["choices"]
    assert choice["message"]["reasoning_content"] == "who?"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "time"
    text = '<think>who?</think>{"a":1}'
    [choice] = ask(thinking, text, response_format={"type": "json_object"})["choices"]
    assert choice["message"]["reasoning_content"] == "who?"
    assert json.loads(choice["message"]["content"]) == {"a": 1}
