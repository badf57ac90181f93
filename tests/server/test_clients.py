"""The client libraries that people have, against the server."""

import openai
import pytest
from huggingface_hub import InferenceClient
from text_generation import Client

HI = [{"role": "user", "content": "Hi there"}]


@pytest.fixture(scope="module")
def client(stack):
    with openai.OpenAI(base_url=stack.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def test_openai_chat(client):
    answer = client.chat.completions.create(model="tgi", messages=HI, temperature=0, n=2)
    assert [choice.message.content for choice in answer.choices] == ["Hi there"] * 2
    assert answer.usage.completion_tokens == 18
    chunks = client.chat.completions.create(
        model="tgi",
        messages=HI,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    parts = list(chunks)
    assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == "Hi there"
    assert parts[-1].usage.completion_tokens == 9


def test_openai_completions_and_models(client):
    answer = client.completions.create(model="echo:test", prompt="abc", temperature=0)
    assert answer.choices[0].text == "abc"
    stream = client.completions.create(model="tgi", prompt="abc", temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in stream) == "abc"
    assert [model.id for model in client.models.list()] == ["echo:test"]


def test_openai_completions_of_several_prompts(client):
    prompts = ["Hello", "What is it", "?", "a longer one than the others"]
    for _ in range(5):
        stream = client.completions.create(
            model="tgi",
            prompt=prompts,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        texts = dict.fromkeys(range(len(prompts)), "")
        parts = list(stream)
        for part in parts:
            for choice in part.choices:
                texts[choice.index] += choice.text
        assert list(texts.values()) == prompts
        assert [part.usage is not None for part in parts] == [False] * (len(parts) - 1) + [True]
        assert parts[-1].usage.completion_tokens == sum(len(prompt) + 1 for prompt in prompts)


def test_openai_errors_are_typed(client):
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        client.completions.create(model="tgi", prompt="x", temperature=-1)
    with pytest.raises(openai.UnprocessableEntityError, match=r"tools\[0\]"):
        client.chat.completions.create(model="tgi", messages=HI, tools=[{"type": "function"}])


def test_inference_client(stack):
    client = InferenceClient(stack.url)
    whole = client.text_generation("hello", max_new_tokens=4, details=True, return_full_text=False)
    assert (whole.generated_text, whole.details.finish_reason) == ("hell", "length")
    events = list(client.text_generation("hello", max_new_tokens=4, details=True, stream=True))
    assert [event.token.text for event in events] == ["h", "e", "l", "l"]
    assert events[-1].details.generated_tokens == 4
    answer = client.chat_completion(HI, temperature=0)
    assert answer.choices[0].message.content == "Hi there"
    parts = client.chat_completion(HI, temperature=0, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "Hi there"


def test_text_generation_client(stack):
    client = Client(stack.url)
    whole = client.generate("hello", max_new_tokens=4)
    assert (whole.generated_text, whole.details.generated_tokens) == ("hell", 4)
    events = list(client.generate_stream("hello", max_new_tokens=4))
    assert "".join(event.token.text for event in events) == "hell"
    assert client.chat(HI, temperature=0).choices[0].message.content == "Hi there"
