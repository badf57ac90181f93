"""TGI's own Python client (text-generation 0.7.0), both of its kinds."""

import asyncio

import httpx
import pytest
from contract.conftest import ECHO
from contract.wire import user
from deployment import deployed
from text_generation import AsyncClient, Client
from text_generation.errors import (
    GenerationError,
    NotFoundError,
    OverloadedError,
    ValidationError,
)
from text_generation.types import Grammar, GrammarType, Message, Tool

# The client's own affair: it writes JSON the way an older pydantic did.
pytestmark = pytest.mark.filterwarnings("ignore:The `dict` method is deprecated")

PROMPT = "hello world"


@pytest.fixture(scope="module")
def client(echo):
    return Client(echo.url, timeout=30)


@pytest.fixture(scope="module")
def narrow():
    with deployed(
        *ECHO,
        *("--max-concurrent-requests", "1"),
        *("--echo.step-seconds", "0.05", "--echo.fail-on", "FAIL"),
    ) as deployment:
        yield deployment


def test_generate(client):
    answer = client.generate(PROMPT, max_new_tokens=5)
    assert answer.generated_text == "hello"
    assert answer.details.finish_reason == "length"
    assert [token.text for token in answer.details.tokens] == list("hello")
    assert answer.details.prefill == []
    assert answer.details.seed is None


def test_generate_with_everything_it_can_ask_for(client):
    answer = client.generate(
        PROMPT,
        do_sample=True,
        max_new_tokens=6,
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        return_full_text=True,
        seed=7,
        stop_sequences=["zzzz"],
        temperature=0.9,
        top_k=5,
        top_p=0.95,
        truncate=8,
        typical_p=0.95,
        decoder_input_details=True,
        top_n_tokens=2,
    )
    assert answer.generated_text.startswith(PROMPT)
    assert answer.details.seed == 7
    assert answer.details.prefill[0].logprob is None
    assert all(len(step) == 2 for step in answer.details.top_tokens)


def test_best_of(client):
    details = client.generate(PROMPT, do_sample=True, best_of=2, max_new_tokens=6).details
    (other,) = details.best_of_sequences
    assert other.generated_tokens == len(other.tokens)
    assert other.generated_text


def test_a_stream_is_the_whole_answer_in_pieces(client):
    whole = client.generate(PROMPT, max_new_tokens=20)
    events = list(client.generate_stream(PROMPT, max_new_tokens=20, top_n_tokens=1))
    assert [event.token for event in events] == whole.details.tokens
    assert events[-1].generated_text == whole.generated_text == PROMPT
    assert events[-1].details.finish_reason == "eos_token"
    assert all(event.generated_text is None for event in events[:-1])
    assert all(len(event.top_tokens) == 1 for event in events)


def test_the_demo_model_says_the_same_whole_and_streamed(demo):
    client = Client(demo.url, timeout=30)
    whole = client.generate("What is Backplane?", max_new_tokens=16)
    events = list(client.generate_stream("What is Backplane?", max_new_tokens=16))
    assert [event.token.id for event in events] == [token.id for token in whole.details.tokens]
    assert events[-1].generated_text == whole.generated_text
    assert events[-1].details.finish_reason == whole.details.finish_reason


def test_a_draw_repeats_with_its_seed(client):
    options = {"max_new_tokens": 16, "do_sample": True, "temperature": 1.5, "top_p": 0.95}

    def drawn(seed: int) -> str:
        return client.generate(PROMPT, seed=seed, **options).generated_text

    assert drawn(3) == drawn(3)
    assert {drawn(seed) for seed in range(4, 8)} - {drawn(3)}


def test_stop_sequences_stay(client):
    answer = client.generate(PROMPT, max_new_tokens=20, stop_sequences=["o w"])
    assert answer.generated_text == "hello w"
    assert answer.details.finish_reason == "stop_sequence"


def test_a_grammar(demo):
    grammar = Grammar(type=GrammarType.Regex, value="[0-9]{4}")
    text = Client(demo.url).generate(PROMPT, max_new_tokens=20, grammar=grammar).generated_text
    assert len(text) == 4
    assert text.isdigit()


def test_a_watermark(demo):
    client = Client(demo.url)
    options = {"do_sample": True, "seed": 3, "temperature": 1.5, "max_new_tokens": 30}
    marked = client.generate(PROMPT, watermark=True, **options).generated_text
    assert marked != client.generate(PROMPT, **options).generated_text


def test_chat(client):
    answer = client.chat([Message(role="user", content="hello")], temperature=0.0, logprobs=True)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "hello")
    assert choice.finish_reason == "stop"
    assert answer.usage["completion_tokens"] == 6


def test_chat_with_a_tool(demo):
    function = {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    answer = Client(demo.url).chat(
        [Message(role="user", content="What is the weather in Paris?")],
        tools=[Tool(type="function", function=function)],
        tool_choice="get_weather",
        max_tokens=60,
        temperature=0.0,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call["function"]["name"] == "get_weather"


async def test_the_asynchronous_client(echo):
    client = AsyncClient(echo.url, timeout=30)
    whole = await client.generate(PROMPT, max_new_tokens=20)
    events = [event async for event in client.generate_stream(PROMPT, max_new_tokens=20)]
    assert [event.token for event in events] == whole.details.tokens
    answers = await asyncio.gather(*(client.generate(PROMPT) for _ in range(4)))
    assert {answer.generated_text for answer in answers} == {PROMPT}
    chat = await client.chat([Message(role="user", content="hello")], temperature=0.0)
    assert chat.choices[0].message.content == "hello"


@pytest.mark.parametrize(
    "options",
    [{"max_new_tokens": 10**6}, {"max_new_tokens": 0}, {"stop_sequences": ["a"] * 5}],
    ids=str,
)
async def test_what_the_server_refuses_is_a_validation_error(echo, client, options):
    with pytest.raises(ValidationError):
        client.generate(PROMPT, **options)
    with pytest.raises(ValidationError):
        list(client.generate_stream(PROMPT, **options))
    with pytest.raises(ValidationError):
        await AsyncClient(echo.url).generate(PROMPT, **options)


async def test_a_failed_generation_is_a_generation_error(narrow):
    with pytest.raises(GenerationError):
        list(Client(narrow.url, timeout=30).generate_stream("FAIL", max_new_tokens=5))
    with pytest.raises(GenerationError):
        Client(narrow.url, timeout=30).generate("FAIL", max_new_tokens=5)
    with pytest.raises(GenerationError):
        await AsyncClient(narrow.url, timeout=30).generate("FAIL", max_new_tokens=5)


async def test_no_room_is_an_overloaded_error(narrow):
    body = {"inputs": "x" * 100, "parameters": {}}
    with httpx.stream("POST", narrow.url + "/generate_stream", json=body, timeout=30) as first:
        running = first.iter_bytes()  # held, as the stream ends with it
        next(running)
        client = Client(narrow.url, timeout=30)
        with pytest.raises(OverloadedError):
            client.generate(PROMPT)
        with pytest.raises(OverloadedError):
            list(client.generate_stream(PROMPT))
        with pytest.raises(OverloadedError):
            await AsyncClient(narrow.url, timeout=30).generate(PROMPT)


def test_no_such_route_is_a_not_found_error(echo):
    with pytest.raises(NotFoundError):
        Client(echo.url + "/nowhere").generate(PROMPT)


def test_its_chat_refusals_carry_the_servers_sentence(client):
    """Chats answer in OpenAI's shape, which this client knows no class for."""
    with pytest.raises(Exception, match="frequency_penalty"):
        client.chat(user("hello"), frequency_penalty=5.0)
