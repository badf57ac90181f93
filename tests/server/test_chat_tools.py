"""Tools and thoughts in chats: what OpenAI's clients get, whole and as a stream.

The echo says what the last message says, so that message holds the markup of the answer.
"""

import json
import re

import openai
import pytest

from tests.server.chat_client import (
    CALL_ID,
    FUNCTIONS,
    PATH,
    TEMPLATE,
    TOOLS,
    ask,
    call,
    joined,
    without_ids,
)


@pytest.fixture(scope="module")
def hermes(stack_module):
    with stack_module.Stack(
        chat_template=TEMPLATE, tool_call_parser="hermes", reasoning_parser="qwen3"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def thoughtless(stack_module):
    with stack_module.Stack(chat_template=TEMPLATE, tool_call_parser="hermes") as running:
        yield running


def test_a_call_is_a_call(hermes):
    answer = ask(hermes, call("weather", city="Oslo"), tools=TOOLS)
    [choice] = answer["choices"]
    assert CALL_ID.fullmatch(choice["message"]["tool_calls"][0]["id"])
    assert without_ids(choice) == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                }
            ],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_a_stop_string_cuts_is_not_for_calling(hermes, stream):
    question, body = call("weather", city="Oslo"), {"tools": TOOLS, "stop": ["lo"]}
    if stream:
        [choice], _ = joined(hermes, question, **body)
    else:
        [choice] = ask(hermes, question, **body)["choices"]
    [cut] = choice["message"]["tool_calls"]
    assert cut["function"]["arguments"] == '{"city": "Os'
    assert choice["finish_reason"] == "stop"


def test_the_bytes_of_a_streamed_call(hermes):
    messages = [{"role": "user", "content": "Hi " + call("time")}]
    body = {"messages": messages, "temperature": 0, "stream": True, "tools": TOOLS}
    content = hermes.post(PATH, body).content.decode()
    head = re.match(r'data: (\{"object":.*?,"choices":\[)', content)[1]
    frames = content.replace(f"data: {head}", "").split("\n\n")
    call_id = CALL_ID.search(content)[0]
    end = ',"logprobs":null,"finish_reason":null}],"usage":null}'
    assert frames[0] == '{"index":0,"delta":{"role":"assistant","content":""}' + end
    assert frames[1] == '{"index":0,"delta":{"content":"H"}' + end
    assert frames[2] == '{"index":0,"delta":{"content":"i"}' + end
    assert frames[3] == (
        f'{{"index":0,"delta":{{"tool_calls":[{{"index":0,"id":"{call_id}","type":"function",'
        f'"function":{{"name":"time","arguments":""}}}}]}}{end}'
    )
    assert frames[4].startswith(
        '{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{'
    )
    assert frames[-3] == (
        '{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}'
    )
    assert frames[-2:] == ["data: [DONE]", ""]


TEXTS = {
    "call": call("weather", city="Oslo"),
    "calls": call("weather", city="Oslo") + "\n" + call("time", city="Bergen"),
    "words and a call": "Let me look. " + call("weather"),
    "words": "Nothing to call here, just < and <tool.",
    "no such function": call("rob_bank"),
    "thoughts": "<think>\nhm, é\n</think>\n\nThe answer.",
    "thoughts and a call": "<think>hm</think>" + call("time"),
    "thoughts alone": "<think>hm",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "fields", [{}, {"n": 2}, {"parallel_tool_calls": False}, {"logprobs": True, "top_logprobs": 1}]
)
def test_a_stream_put_together_is_the_whole(hermes, name, fields):
    whole = ask(hermes, TEXTS[name], tools=TOOLS, **fields)["choices"]
    parts, events = joined(hermes, TEXTS[name], tools=TOOLS, **fields)
    assert len(parts) == len(whole) == fields.get("n", 1)
    for part, choice in zip(parts, whole, strict=True):
        assert without_ids(part["message"]) == without_ids(choice["message"])
        assert part["finish_reason"] == choice["finish_reason"]
    if fields.get("logprobs"):
        entries = [
            entry
            for event in events[:-1]
            for entry in (event["choices"][0]["logprobs"] or {"content": []})["content"]
        ]
        assert entries == whole[0]["logprobs"]["content"]
        # They tell of every visible token: of the thoughts' and the calls' marks too.
        text = b"".join(bytes(entry["bytes"]) for entry in entries).decode()
        assert text == TEXTS[name]
    shown = json.dumps([choice["message"] for choice in whole])
    assert "tool_call>" not in shown
    assert "think>" not in shown


def test_parallel_calls_and_their_absence(hermes):
    names = [
        [made["function"]["name"] for made in choice["message"]["tool_calls"]]
        for fields in ({}, {"parallel_tool_calls": False})
        for choice in ask(hermes, TEXTS["calls"], tools=TOOLS, **fields)["choices"]
    ]
    assert names == [["weather", "time"], ["weather"]]
    ids = {
        made["id"]
        for made in ask(hermes, TEXTS["calls"], tools=TOOLS)["choices"][0]["message"]["tool_calls"]
    }
    assert len(ids) == 2


def test_a_call_that_is_cut_off_ended_by_length(hermes):
    answer = ask(hermes, TEXTS["call"], tools=TOOLS, max_tokens=60)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "length"
    parts, _ = joined(hermes, TEXTS["call"], tools=TOOLS, max_tokens=60)
    assert parts[0]["finish_reason"] == "length"
    assert without_ids(parts[0]["message"]) == without_ids(choice["message"])


def test_the_older_form_is_answered_in_its_own(hermes):
    [choice] = ask(hermes, TEXTS["calls"], functions=FUNCTIONS)["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'},
    }
    assert choice["finish_reason"] == "function_call"
    [part], events = joined(hermes, TEXTS["calls"], functions=FUNCTIONS)
    assert part == {"message": choice["message"], "finish_reason": "function_call"}
    first = next(e for e in events if "function_call" in e["choices"][0]["delta"])
    assert first["choices"][0]["delta"] == {"function_call": {"name": "weather", "arguments": ""}}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": TOOLS, "tool_choice": "none"},
        {"tools": []},
        {"tools": None},
        {"functions": FUNCTIONS, "function_call": "none"},
    ],
)
def test_without_tools_markup_is_text_and_the_template_sees_none(hermes, fields):
    answer = ask(hermes, TEXTS["call"], **fields)
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": TEXTS["call"]}
    assert choice["finish_reason"] == "stop"
    with_tools = ask(hermes, TEXTS["call"], tools=TOOLS)
    assert with_tools["usage"]["prompt_tokens"] > answer["usage"]["prompt_tokens"] + 100


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"tool_choice": "required"}, {"weather", "time"}),
        ({"tool_choice": {"type": "function", "function": {"name": "time"}}}, {"time"}),
        ({"tool_choice": "time"}, {"time"}),
    ],
)
def test_a_call_is_enforced(thoughtless, fields, names):
    # The echo wants to say something else; the grammar leaves it no choice.
    fields = {"tools": TOOLS, "max_tokens": 300, "parallel_tool_calls": False, **fields}
    answer = ask(thoughtless, '"Oslo"}}', **fields)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "tool_calls", choice
    assert choice["message"]["content"] is None
    [made] = choice["message"]["tool_calls"]
    assert made["function"]["name"] in names
    assert isinstance(json.loads(made["function"]["arguments"]), dict)
    [part], _ = joined(thoughtless, '"Oslo"}}', **fields)
    assert without_ids(part["message"]) == without_ids(choice["message"])


def test_results_go_through_the_template_as_messages(hermes):
    history = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "look it up",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": "rain"},
    ]
    prompt = hermes.post("/chat_tokenize", {"messages": history}).json()["templated_text"]
    assert prompt == (
        "<|im_start|>user\nWeather?<|im_end|>\n"
        '<|im_start|>assistant\n[call_1:weather{"city": "Oslo"}](look it up)<|im_end|>\n'
        "<|im_start|>tool\nrain#call_1<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ask(hermes, history)["choices"][0]["message"]["content"] == "rain#call_1"


def test_the_older_history_is_told_in_the_newer_way(hermes):
    history = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "weather", "arguments": "{}"},
        },
        {"role": "function", "name": "weather", "content": "rain"},
    ]
    prompt = hermes.post("/chat_tokenize", {"messages": history}).json()["templated_text"]
    assert "[weather:weather{}]<|im_end|>" in prompt
    assert "<|im_start|>tool\nrain#weather<|im_end|>" in prompt


def test_a_template_that_says_nothing_of_tools_has_them_said(stack):
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS}
    prompt = stack.post("/chat_tokenize", body).json()["templated_text"]
    user = prompt.split("<|im_end|>")[0]
    assert user.startswith("<|im_start|>user\nHi\n---\n[{")
    assert '"about weather"' in user
    told = stack.post("/chat_tokenize", {**body, "tool_prompt": "JSON!"}).json()["templated_text"]
    assert told.split("<|im_end|>")[0].endswith("]\nJSON!")


def test_the_clients_word_about_tools_follows_the_last_message(hermes):
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS, "tool_prompt": "Do."}
    prompt = hermes.post("/chat_tokenize", body).json()["templated_text"]
    assert "<|im_start|>user\nHi\n---\nDo.<|im_end|>" in prompt


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": TOOLS * 2}, "tools[2].function.name"),
        ({"tools": TOOLS, "tool_choice": "rob_bank"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": 5}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": TOOLS, "guided_regex": "a"}, "guided_regex"),
        ({"tools": [{"function": {"name": "f", "parameters": {"maximum": 10**40}}}]}, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_with_tools_is_named(hermes, fields, name, stream):
    messages = [{"role": "user", "content": "Hi"}]
    response = hermes.post(PATH, {"messages": messages, "stream": stream, **fields})
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    if name is not None:
        assert error["param"] == name
        assert f"`{name}`" in error["message"] or name == "tool_choice"


def test_no_tools_and_a_format_are_no_contradiction(hermes):
    fields = {"tools": [], "response_format": {"type": "text"}}
    assert ask(hermes, "Hi", **fields)["choices"][0]["message"]["content"] == "Hi"


@pytest.fixture(scope="module")
def client(hermes):
    with openai.OpenAI(base_url=hermes.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def test_with_openais_client(client):
    messages = [{"role": "user", "content": TEXTS["calls"]}]
    whole = client.chat.completions.create(
        model="tgi", messages=messages, temperature=0, tools=TOOLS
    )
    calls = whole.choices[0].message.tool_calls
    assert [made.function.name for made in calls] == ["weather", "time"]
    with client.chat.completions.stream(
        model="tgi", messages=messages, temperature=0, tools=TOOLS
    ) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert final.choices[0].finish_reason == "tool_calls"
    assert [made.function.arguments for made in message.tool_calls] == [
        made.function.arguments for made in calls
    ]
    # What came back goes into the next request as it is.
    messages += [
        message.model_dump(exclude_none=True, exclude={"parsed"}),
        *(
            {"role": "tool", "tool_call_id": made.id, "content": "12"}
            for made in message.tool_calls
        ),
    ]
    again = client.chat.completions.create(model="tgi", messages=messages, temperature=0)
    assert again.choices[0].message.content.startswith("12#call_")
