"""Tools through OpenAI's own client, with the demo model, which knows the weather and the time."""

import json

import pytest
from contract.wire import CHAT, DONE, answered, post, streamed, user
from openai import OpenAI, UnprocessableEntityError

GREEDY = {"model": "tgi", "temperature": 0, "max_tokens": 120}
MARKUP = ("<tool_call>", "</tool_call>", '"arguments"')
PARIS = "What is the weather in Paris?"


def tool(name: str, description: str, **properties: str) -> dict:
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", "Get the weather in a city.", city="string")
TIME = tool("get_time", "Get the local time in a city.", city="string")
ADD = tool("add", "Add two numbers.", a="integer", b="integer")


@pytest.fixture(scope="module")
def client(demo):
    return OpenAI(base_url=f"{demo.url}/v1", api_key="unused", max_retries=0)


def ask(client, text, **options):
    messages = options.pop("messages", user(text))
    return client.chat.completions.create(**{**GREEDY, **options}, messages=messages)


def test_auto_calls_where_the_model_wants_to(client):
    (choice,) = ask(client, PARIS, tools=[WEATHER]).choices
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert call.id


def test_the_bytes_of_a_call(demo):
    answer = answered(demo, CHAT, {**GREEDY, "messages": user(PARIS), "tools": [WEATHER]})
    message = answer["choices"][0]["message"]
    assert list(message) == ["role", "content", "tool_calls"]
    (call,) = message["tool_calls"]
    assert set(call) == {"id", "type", "function"}
    assert isinstance(call["function"]["arguments"], str)
    assert {"name", "arguments"} <= set(call["function"])


def test_ids_of_calls_differ(client):
    ids = {ask(client, PARIS, tools=[WEATHER]).choices[0].message.tool_calls[0].id for _ in "ab"}
    assert len(ids) == 2


@pytest.mark.parametrize("choice", ["none", "left out"])
def test_none_calls_nothing(client, choice):
    options = {"tools": [WEATHER], "tool_choice": "none"} if choice == "none" else {}
    (answer,) = ask(client, "What is Backplane?", **options).choices
    assert answer.message.tool_calls is None
    assert answer.message.content
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("text", ["hello", "Tell me a story.", PARIS])
def test_required_calls_whatever_the_model_would_say(client, text):
    (choice,) = ask(client, text, tools=[WEATHER, TIME], tool_choice="required").choices
    assert choice.finish_reason == "tool_calls"
    for call in choice.message.tool_calls:
        assert call.function.name in {"get_weather", "get_time"}
        assert set(json.loads(call.function.arguments)) == {"city"}


@pytest.mark.parametrize(
    "choice", [{"type": "function", "function": {"name": "add"}}, "add"], ids=["object", "TGI's"]
)
def test_a_named_function_is_called_with_its_types(client, choice):
    (answer,) = ask(client, PARIS, tools=[WEATHER, ADD], tool_choice=choice).choices
    (call,) = answer.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "add"
    assert set(arguments) == {"a", "b"}
    assert all(isinstance(value, int) for value in arguments.values())


def test_a_call_that_does_not_fit_is_cut_and_says_so(client):
    """TGI answers 422; the call is whole or it is none, and the reason is the length."""
    (choice,) = ask(client, "hi", tools=[ADD], tool_choice="required", max_tokens=3).choices
    assert choice.finish_reason == "length"
    for call in choice.message.tool_calls or []:
        assert call.function.name in {"", "add"}
    assert not any(mark in (choice.message.content or "") for mark in MARKUP)


def test_one_call_where_several_are_not_wanted(client):
    (choice,) = ask(
        client, PARIS, tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False
    ).choices
    assert len(choice.message.tool_calls) == 1


def test_several_calls_in_one_answer_have_an_index_each(demo):
    """What a model of this format writes for two calls, read back from the history's rendering."""
    calls = [
        {"id": f"call_{city}", "type": "function",
         "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
        for city in ("Paris", "Rome")
    ]  # fmt: skip
    messages = [
        *user("The weather in Paris and Rome?"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in calls),
    ]
    body = {"messages": messages, "tools": [WEATHER]}
    text = answered(demo, "/chat_tokenize", body)["templated_text"]
    assert text.count('<tool_call>{"name": "get_weather"') == 2
    assert '"city": "Rome"' in text
    assert "\\" not in text.partition("<|im_start|>assistant")[2], "arguments are encoded once"
    assert text.count("<|im_start|>tool\nsunny") == 2
    assert text.count('"name": "get_weather"') == 3, "offered once, called twice"
    answer = answered(demo, CHAT, {**GREEDY, **body, "max_tokens": 30})
    assert answer["choices"][0]["finish_reason"]


def test_a_streamed_call_comes_in_pieces(client):
    whole = ask(client, PARIS, tools=[WEATHER]).choices[0].message.tool_calls[0].function
    chunks = list(
        ask(client, PARIS, tools=[WEATHER], stream=True, stream_options={"include_usage": True})
    )
    choices = [choice for chunk in chunks for choice in chunk.choices]
    deltas = [call for one in choices for call in one.delta.tool_calls or []]
    assert all(call.index == 0 for call in deltas)
    assert (deltas[0].type, deltas[0].function.name) == ("function", "get_weather")
    assert deltas[0].id
    assert all(call.id is None and call.function.name is None for call in deltas[1:])
    assert len(deltas) > 2
    arguments = "".join(call.function.arguments or "" for call in deltas)
    assert json.loads(arguments) == json.loads(whole.arguments)
    assert [one.finish_reason for one in choices if one.finish_reason] == ["tool_calls"]
    assert not "".join(one.delta.content or "" for one in choices).strip()
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_forced_call_streams_too(client, choice):
    chunks = ask(client, "hello", tools=[ADD], tool_choice=choice, stream=True)
    choices = [one for chunk in chunks for one in chunk.choices]
    deltas = [call for one in choices for call in one.delta.tool_calls or []]
    arguments = "".join(call.function.arguments or "" for call in deltas if call.index == 0)
    assert set(json.loads(arguments)) == {"a", "b"}
    assert choices[-1].finish_reason == "tool_calls"
    assert not any(mark in (one.delta.content or "") for one in choices for mark in MARKUP)


def test_n_answers_call_apart(client):
    answer = ask(client, PARIS, tools=[WEATHER], tool_choice="required", n=2, temperature=1, seed=2)
    ids = [call.id for one in answer.choices for call in one.message.tool_calls]
    assert len(set(ids)) == len(ids) >= 2


def test_tools_stream_as_the_chunks_of_a_chat(demo):
    body = {**GREEDY, "messages": user(PARIS), "tools": [WEATHER], "stream": True}
    *chunks, end = streamed(demo, CHAT, body)
    assert end == DONE
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)


@pytest.mark.parametrize(
    "empty", [{"tools": []}, {"tools": None}, {"tools": [], "tool_choice": "auto"}], ids=str
)
def test_no_tools_are_no_tools(demo, empty):
    body = {**GREEDY, "messages": user("What is Backplane?"), **empty}
    body |= {"response_format": {"type": "text"}}
    assert answered(demo, CHAT, body)["choices"][0]["message"]["content"]


def test_a_function_without_parameters_takes_none(client):
    bare = {"type": "function", "function": {"name": "ping"}}
    (choice,) = ask(client, "hello", tools=[bare], tool_choice="required").choices
    (call, *_) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("ping", {})


@pytest.mark.parametrize(
    "broken",
    [
        [{"type": "function"}],
        [{"type": "function", "function": {"name": ""}}],
        [{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}],
        "get_weather",
    ],
    ids=str,
)
def test_broken_tools_are_refused(demo, broken):
    body = {**GREEDY, "messages": user(PARIS), "tools": broken, "tool_choice": "required"}
    response = post(demo, CHAT, body)
    assert response.status_code == 422
    assert "tool" in response.json()["error"]["message"]


def test_a_choice_without_tools_is_refused(client):
    with pytest.raises(UnprocessableEntityError) as refused:
        ask(client, PARIS, tool_choice="required")
    assert refused.value.param == "tool_choice"


def test_the_tool_prompt_reaches_the_model(demo):
    """TGI's own field: a sentence of the client's beside the tools."""
    body = {"messages": user(PARIS), "tools": [WEATHER], "tool_prompt": "Answer with a call."}
    text = answered(demo, "/chat_tokenize", body)["templated_text"]
    assert "Answer with a call." in text
