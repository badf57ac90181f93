"""TGI's own client library, and the Hub's, with all that they can ask of native routes."""

import asyncio

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import GenerationError as HubGenerationError
from huggingface_hub.errors import ValidationError as HubValidationError
from text_generation import AsyncClient, Client
from text_generation.errors import ValidationError

DRAW = {"do_sample": True, "temperature": 1.4, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def client(stack):
    return Client(stack.url)


@pytest.fixture(scope="module")
def hub(stack):
    return InferenceClient(stack.url)


def test_generate_with_everything(client):
    answer = client.generate(
        "hello world",
        best_of=2,
        top_k=10,
        top_p=0.95,
        typical_p=0.95,
        repetition_penalty=1.03,
        frequency_penalty=0.1,
        truncate=100,
        stop_sequences=["zzz"],
        decoder_input_details=True,
        return_full_text=True,
        top_n_tokens=3,
        **DRAW,
    )
    details = answer.details
    assert answer.generated_text.startswith("hello world")
    assert len(details.best_of_sequences) == 1
    assert [token.text for token in details.prefill][:3] == ["<|bos|>", "h", "e"]
    assert details.prefill[0].logprob is None
    assert {len(step) for step in details.top_tokens} == {3}
    assert len(details.tokens) == details.generated_tokens


def test_generate_repeats_with_a_seed(client):
    texts = {client.generate("abcdefgh", seed=2**63 + 5, **DRAW).generated_text for _ in range(3)}
    assert len(texts) == 1
    details = client.generate("abc", seed=7, **DRAW).details
    assert details.seed == 7


def test_generate_stops_across_tokens(client):
    answer = client.generate("hello world", stop_sequences=["o wo"], max_new_tokens=40)
    assert answer.generated_text == "hello wo"
    assert answer.details.finish_reason.value == "stop_sequence"
    events = list(client.generate_stream("hello world", stop_sequences=["o wo"]))
    assert events[-1].generated_text == "hello wo"
    assert events[-1].details.finish_reason.value == "stop_sequence"


def test_a_stream_tells_of_every_token(client):
    events = list(client.generate_stream("héy", max_new_tokens=9, top_n_tokens=2))
    assert "".join(event.token.text for event in events if not event.token.special) == "héy"
    assert events[-1].token.special
    assert all(len(event.top_tokens) == 2 for event in events)
    assert events[-1].details.generated_tokens == len(events)


def test_errors_are_typed(client):
    for parameters in ({"best_of": 3, "do_sample": True}, {"max_new_tokens": 5000}):
        with pytest.raises(ValidationError, match="must be"):
            client.generate("x", **parameters)
    with pytest.raises(ValidationError, match="max_new_tokens"):
        list(client.generate_stream("x", max_new_tokens=5000))


async def test_the_asynchronous_client(stack):
    client = AsyncClient(stack.url)
    whole, text = await asyncio.gather(
        client.generate("hello", max_new_tokens=4), _joined(client.generate_stream("hello"))
    )
    assert (whole.generated_text, text) == ("hell", "hello<|eos|>")


async def _joined(stream):
    return "".join([event.token.text async for event in stream])


def test_the_hubs_client_with_everything(hub):
    answer = hub.text_generation(
        "hello world",
        best_of=2,
        decoder_input_details=True,
        details=True,
        frequency_penalty=0.1,
        repetition_penalty=1.1,
        return_full_text=True,
        stop=["zzz"],
        top_k=10,
        top_n_tokens=2,
        top_p=0.9,
        truncate=50,
        typical_p=0.9,
        **DRAW,
    )
    assert answer.generated_text.startswith("hello world")
    assert len(answer.details.best_of_sequences) == 1
    assert answer.details.prefill[0].id == 256
    assert len(answer.details.tokens) == answer.details.generated_tokens


def test_the_hubs_client_streams_and_stops(hub):
    text = "".join(hub.text_generation("hello world", stream=True, stop=["lo w"]))
    assert text == "hello w"
    events = list(hub.text_generation("hi", stream=True, details=True, seed=3, do_sample=True))
    assert events[-1].details.seed == 3


def test_the_hubs_client_types_its_errors(hub):
    with pytest.raises(HubValidationError, match="temperature"):
        hub.text_generation("x", temperature=-1.0)


def test_the_hubs_client_names_an_adapter_that_is_not_there(hub):
    with pytest.raises(Exception, match="adapter") as caught:
        hub.text_generation("x", adapter_id="mine")
    assert not isinstance(caught.value, HubGenerationError)


async def test_the_hubs_asynchronous_client(stack):
    async with AsyncInferenceClient(stack.url) as client:
        for full, text in ((None, "hellohel"), (False, "hel"), (True, "hellohel")):
            asked = {"max_new_tokens": 3, "return_full_text": full}
            assert await client.text_generation("hello", **asked) == text
