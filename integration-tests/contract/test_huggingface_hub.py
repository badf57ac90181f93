"""huggingface_hub's InferenceClient, which is what TGI's users were told to move to."""

import json
import re

import pytest
from contract.conftest import ECHO
from contract.wire import user
from deployment import deployed
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import GenerationError, HfHubHTTPError, ValidationError

PROMPT = "hello world"
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 200}},
    "required": ["age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def client(echo):
    return InferenceClient(echo.url, timeout=30)


@pytest.fixture(scope="module")
def demo_client(demo):
    return InferenceClient(demo.url, timeout=60)


def test_text_generation(client):
    assert client.text_generation(PROMPT, return_full_text=False) == PROMPT
    assert client.text_generation(PROMPT, max_new_tokens=5, return_full_text=False) == "hello"


def test_text_generation_with_details(client):
    answer = client.text_generation(
        PROMPT,
        details=True,
        decoder_input_details=True,
        top_n_tokens=2,
        max_new_tokens=5,
        return_full_text=False,
    )
    assert answer.generated_text == "hello"
    assert answer.details.finish_reason == "length"
    assert [token.text for token in answer.details.tokens] == list("hello")
    assert len(answer.details.prefill) == 12
    assert all(len(step) == 2 for step in answer.details.top_tokens)


def test_text_generation_best_of(client):
    answer = client.text_generation(
        PROMPT, details=True, best_of=2, do_sample=True, max_new_tokens=5
    )
    assert len(answer.details.best_of_sequences) == 1


def test_text_generation_streams(client):
    # The client passes special tokens on as they are written, the end token too.
    assert "".join(client.text_generation(PROMPT, stream=True)) == PROMPT + "<|eos|>"
    events = list(client.text_generation(PROMPT, stream=True, details=True, max_new_tokens=5))
    assert [event.token.text for event in events] == list("hello")
    assert [event.index for event in events] == [1, 2, 3, 4, 5]
    assert events[-1].details.finish_reason == "length"
    assert events[-1].details.input_length == 12
    assert events[-1].generated_text.endswith("hello")


def test_the_demo_model_says_the_same_whole_and_streamed(demo_client):
    prompt = "What is Backplane?"
    whole = demo_client.text_generation(prompt, max_new_tokens=16)
    details = demo_client.text_generation(prompt, max_new_tokens=16, details=True)
    pieces = demo_client.text_generation(prompt, max_new_tokens=16, stream=True, details=True)
    text = "".join(piece.token.text for piece in pieces if not piece.token.special)
    # `POST /` gives the prompt back before the text, as TGI does; its stream's pieces do not.
    assert whole == details.generated_text == prompt + text
    options = {"max_tokens": 16, "temperature": 0.0}
    chat = demo_client.chat_completion(user(prompt), **options).choices[0].message.content
    chunks = demo_client.chat_completion(user(prompt), stream=True, **options)
    assert "".join(one.delta.content or "" for chunk in chunks for one in chunk.choices) == chat


@pytest.mark.parametrize(
    ("grammar", "valid"),
    [
        ({"type": "regex", "value": "[0-9]{4}"}, lambda text: re.fullmatch("[0-9]{4}", text)),
        ({"type": "json", "value": SCHEMA}, lambda text: set(json.loads(text)) == {"age"}),
    ],
    ids=["regex", "json"],
)
def test_text_generation_with_a_grammar(demo_client, grammar, valid):
    options = {"grammar": grammar, "max_new_tokens": 60, "return_full_text": False}
    assert valid(demo_client.text_generation(PROMPT, **options))
    events = demo_client.text_generation(PROMPT, stream=True, details=True, **options)
    assert valid(list(events)[-1].generated_text)


def test_chat_completion(client):
    answer = client.chat_completion(user("hello"), temperature=0.0)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("hello", "stop")
    assert answer.usage.completion_tokens == 6


def test_chat_completion_streams(client):
    chunks = list(
        client.chat_completion(
            user("hello"), temperature=0.0, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(one.delta.content or "" for chunk in chunks for one in chunk.choices)
    assert text == "hello"
    assert chunks[-1].usage.completion_tokens == 6


def test_chat_completion_logprobs(client):
    answer = client.chat_completion(user("hi"), temperature=0.0, logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert [token.token for token in content[:2]] == ["h", "i"]
    assert all(len(token.top_logprobs) == 2 for token in content)


def test_chat_completion_under_openais_name(client):
    answer = client.chat.completions.create(
        model="tgi", messages=user("hello"), temperature=0.0, stop=["l"]
    )
    assert answer.choices[0].message.content == "he"


@pytest.mark.parametrize("choice", ["auto", "required", {"function": {"name": "get_weather"}}])
def test_chat_completion_with_tools(demo_client, choice):
    answer = demo_client.chat_completion(
        user("What is the weather in Paris?"),
        tools=[WEATHER],
        tool_choice=choice,
        max_tokens=80,
        temperature=0.0,
    )
    (one,) = answer.choices
    assert one.finish_reason == "tool_calls"
    (call,) = one.message.tool_calls
    assert call.function.name == "get_weather"
    arguments = call.function.arguments
    assert set(json.loads(arguments) if isinstance(arguments, str) else arguments) == {"city"}


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "age", "schema": SCHEMA}},
        {"type": "json", "value": SCHEMA},
        {"type": "json_object"},
    ],
    ids=["OpenAI's", "TGI's", "any object"],
)
def test_chat_completion_with_a_format(demo_client, form):
    answer = demo_client.chat_completion(
        user("Give me a JSON object for Anna, who is 17 years old."),
        response_format=form,
        max_tokens=80,
        temperature=0.0,
    )
    value = json.loads(answer.choices[0].message.content)
    assert isinstance(value.get("age"), int)


async def test_the_asynchronous_client(echo):
    client = AsyncInferenceClient(echo.url, timeout=30)
    assert await client.text_generation(PROMPT, return_full_text=False) == PROMPT
    pieces = [piece async for piece in await client.text_generation(PROMPT, stream=True)]
    assert "".join(pieces) == PROMPT + "<|eos|>"
    answer = await client.chat_completion(user("hello"), temperature=0.0)
    assert answer.choices[0].message.content == "hello"


def test_refusals_have_their_classes(client):
    with pytest.raises(ValidationError, match="temperature"):
        client.text_generation(PROMPT, temperature=-1.0)
    with pytest.raises(ValidationError, match="best_of"):
        list(client.text_generation(PROMPT, best_of=2, do_sample=True, stream=True))
    with pytest.raises(HfHubHTTPError) as refused:
        client.chat_completion(user("hello"), temperature=-1.0)
    assert refused.value.response.status_code == 422


def test_a_failed_generation_has_its_class():
    with deployed(*ECHO, "--echo.fail-on", "FAIL") as failing:
        client = InferenceClient(failing.url)
        with pytest.raises(GenerationError):
            client.text_generation("FAIL", max_new_tokens=3)
        with pytest.raises(GenerationError):
            list(client.text_generation("FAIL", max_new_tokens=3, stream=True))
