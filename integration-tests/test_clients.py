"""The clients people have: openai, text-generation and huggingface_hub, streaming and not."""

import httpx
import pytest
from huggingface_hub import InferenceClient
from openai import APIStatusError, OpenAI
from text_generation import AsyncClient, Client
from text_generation.errors import ValidationError

PROMPT = "What is Backplane?"
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture
def openai(demo):
    return OpenAI(base_url=f"{demo.url}/v1", api_key="unused", max_retries=0)


def test_openai_chat(openai):
    answer = openai.chat.completions.create(
        model="tgi", messages=MESSAGES, max_tokens=40, temperature=0
    )
    (choice,) = answer.choices
    assert answer.id
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in {"stop", "length"}
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 40


def test_openai_chat_streams_the_same_text(openai):
    options = {"model": "tgi", "messages": MESSAGES, "max_tokens": 40, "temperature": 0}
    whole = openai.chat.completions.create(**options)
    chunks = list(
        openai.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 3
    assert chunks[-1].usage == whole.usage
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert [reason for reason in reasons if reason] == [whole.choices[0].finish_reason]


def test_openai_logprobs(openai):
    answer = openai.chat.completions.create(
        model="tgi", messages=MESSAGES, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)


def test_openai_completions(openai):
    options = {"model": "tgi", "prompt": "Backplane is", "max_tokens": 12, "temperature": 0}
    whole = openai.completions.create(**options)
    streamed = "".join(
        choice.text for chunk in openai.completions.create(**options, stream=True)
        for choice in chunk.choices
    )  # fmt: skip
    assert whole.choices[0].text
    assert streamed == whole.choices[0].text


def test_openai_several_choices(openai):
    answer = openai.chat.completions.create(
        model="tgi", messages=MESSAGES, max_tokens=8, temperature=1.0, seed=5, n=3
    )
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]


def test_openai_stop_text_is_removed(openai):
    options = {"model": "tgi", "messages": MESSAGES, "max_tokens": 40, "temperature": 0}
    text = openai.chat.completions.create(**options).choices[0].message.content
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    answer = openai.chat.completions.create(**options, stop=stop)
    assert answer.choices[0].message.content == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_openai_sees_errors_as_its_own(openai):
    with pytest.raises(APIStatusError) as refusal:
        openai.chat.completions.create(model="tgi", messages=MESSAGES, temperature=-1)
    assert refusal.value.status_code == 422
    assert refusal.value.body["param"] == "temperature"


def test_openai_lists_the_model(openai, demo):
    (model,) = openai.models.list().data
    assert model.id == httpx.get(f"{demo.url}/info").json()["model_id"]


def test_text_generation_client(demo):
    client = Client(demo.url)
    whole = client.generate(PROMPT, max_new_tokens=16)
    assert whole.generated_text
    assert whole.details.generated_tokens == len(whole.details.tokens)
    events = list(client.generate_stream(PROMPT, max_new_tokens=16))
    assert events[-1].generated_text == whole.generated_text
    assert [event.token.id for event in events] == [token.id for token in whole.details.tokens]
    assert events[-1].details.finish_reason == whole.details.finish_reason


def test_text_generation_client_sampling_is_seeded(demo):
    client = Client(demo.url)
    options = {"max_new_tokens": 16, "do_sample": True, "temperature": 1.5, "top_p": 0.95}
    first = client.generate(PROMPT, seed=3, **options).generated_text
    assert client.generate(PROMPT, seed=3, **options).generated_text == first
    others = {client.generate(PROMPT, seed=seed, **options).generated_text for seed in range(4, 8)}
    assert others - {first}


async def test_text_generation_async_client(demo):
    client = AsyncClient(demo.url)
    whole = await client.generate(PROMPT, max_new_tokens=16)
    pieces = [event async for event in client.generate_stream(PROMPT, max_new_tokens=16)]
    assert pieces[-1].generated_text == whole.generated_text


def test_text_generation_client_sees_validation_errors(demo):
    with pytest.raises(ValidationError):
        Client(demo.url).generate(PROMPT, max_new_tokens=10**9)


def test_huggingface_hub_text_generation(demo):
    client = InferenceClient(demo.url)
    whole = client.text_generation(PROMPT, max_new_tokens=16)
    streamed = "".join(client.text_generation(PROMPT, max_new_tokens=16, stream=True))
    details = client.text_generation(PROMPT, max_new_tokens=16, details=True)
    # `POST /` gives the prompt back before the text, as TGI does; its stream's pieces do not.
    assert streamed
    assert whole == PROMPT + streamed
    assert details.generated_text == whole


def test_huggingface_hub_chat(demo):
    client = InferenceClient(demo.url)
    whole = client.chat_completion(MESSAGES, max_tokens=16, temperature=0.0)
    streamed = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in client.chat_completion(MESSAGES, max_tokens=16, temperature=0.0, stream=True)
        if chunk.choices
    )
    assert streamed == whole.choices[0].message.content
