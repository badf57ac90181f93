"""One client against servers that answer well, late, wrongly, or not to the end."""

import json
import socket
from time import perf_counter

import pytest
from backplane_launcher.bench.client import Address, Client
from backplane_launcher.bench.dialects import Ask, Message, make_dialect
from backplane_launcher.bench.reply import Reply
from backplane_launcher.bench.server_facts import served_model, server_version
from backplane_launcher.usage import UsageError

from .scripted_server import (
    CLOSE,
    GOOD,
    HEAD,
    ScriptedServer,
    chunk,
    event,
    stream,
    text_event,
    whole,
)

ASK = Ask(prompt=[1, 2, 3], num_output=4)
WORDS = Ask(prompt="some words", num_output=4)


def client_for(url, api="openai-completions", *, streams=True, timeout_s=20.0, **extra):
    dialect = make_dialect(api, streams=streams, ignore_eos=True, extra=extra)
    return Client(
        Address(url), dialect, streams=streams, model="m", api_key="k", timeout_s=timeout_s
    )


async def ask(client, request=ASK):
    reply = Reply(started=perf_counter())
    await client.send(request, reply)
    return reply


async def ask_once(*script, request=ASK, **options):
    with ScriptedServer(list(script)) as server:
        client = client_for(server.url, **options)
        try:
            return await ask(client, request)
        finally:
            client.close()


async def test_a_good_stream_is_read_and_timed():
    reply = await ask_once(
        HEAD,
        chunk(text_event("one")),
        0.05,
        chunk(text_event(" two three")),
        chunk(text_event("", "length")),
        chunk(
            event(
                {
                    "choices": [],
                    "usage": {
                        "prompt_tokens": 7,
                        "completion_tokens": 3,
                        "prompt_tokens_details": {"cached_tokens": 3},
                    },
                }
            )
        ),
        chunk(event("[DONE]")) + b"0\r\n\r\n",
    )
    assert reply.failure == ""
    assert reply.text == "one two three"
    assert (reply.num_prompt, reply.num_cached, reply.num_tokens) == (7, 3, 3)
    # An event without text is no arrival.
    first, second = reply.arrivals
    assert reply.started < first < second - 0.04
    assert second <= reply.ended
    assert reply.tpot == pytest.approx((second - first) / 2)


async def test_the_request_is_what_the_api_takes():
    with ScriptedServer([GOOD]) as server:
        client = client_for(server.url + "/some/prefix", temperature=0.5, best="x")
        await ask(client)
        client.close()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /some/prefix/v1/completions HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in lines
    assert "Authorization: Bearer k" in lines
    assert json.loads(body) == {
        "model": "m",
        "prompt": [1, 2, 3],
        "max_tokens": 4,
        "temperature": 0.5,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "best": "x",
    }


async def test_connections_are_used_again():
    with ScriptedServer([GOOD]) as server:
        client = client_for(server.url)
        for _ in range(3):
            assert (await ask(client)).failure == ""
        client.close()
    assert server.num_connections == 1
    assert len(server.requests) == 3


async def test_a_connection_that_was_closed_while_idle_costs_no_request():
    with ScriptedServer([GOOD], [CLOSE], [GOOD]) as server:
        client = client_for(server.url)
        assert (await ask(client)).failure == ""
        # The server takes the second request and closes without a word, as one does whose
        # keep-alive has just run out; a new connection gets the answer.
        assert (await ask(client)).failure == ""
        client.close()
    assert server.num_connections == 2


@pytest.mark.parametrize(
    ("script", "kind", "told"),
    [
        ([CLOSE], "cut", "before the answer was whole"),
        ([HEAD, chunk(text_event("one")), CLOSE], "cut", "before the answer was whole"),
        ([stream(text_event("one"))], "cut", "the stream ended before the answer did"),
        ([stream(text_event("one", "stop"), b'data: {"half')], "cut", "stream ended"),
        ([b"nonsense\r\n\r\n", CLOSE], "garbage", "no HTTP"),
        ([HEAD + b"zz\r\n", CLOSE], "garbage", "no HTTP"),
        ([stream(event("{"))], "garbage", "not this API's"),
        ([stream(event({"choices": "no list"}))], "garbage", "not this API's"),
        (
            [whole("500 Oops", b'{"error": {"message": "the engine\\n broke", "code": 5}}')],
            "status 500",
            "the engine broke",
        ),
        ([whole("503 No", b"not JSON at all")], "status 503", "not JSON at all"),
        ([whole("422 No", b'{"detail": [{"msg": "bad"}]}')], "status 422", '[{"msg":"bad"}]'),
        (
            [stream(text_event("one"), event({"error": {"message": "worker died"}}))],
            "error in stream",
            "worker died",
        ),
    ],
)
async def test_every_failure_has_its_kind_and_what_was_said(script, kind, told):
    reply = await ask_once(*script)
    assert reply.failure == kind
    assert told in reply.message
    assert reply.ended >= reply.started


async def test_an_answer_without_an_end_in_time():
    reply = await ask_once(HEAD, chunk(text_event("one")), 5.0, timeout_s=0.2)
    assert reply.failure == "timeout"
    assert len(reply.arrivals) == 1


async def test_nothing_of_an_answer_that_was_given_up_meets_the_next():
    late = [HEAD, chunk(text_event("late")), 0.5, GOOD]
    with ScriptedServer(late, [GOOD]) as server:
        client = client_for(server.url, timeout_s=0.2)
        assert (await ask(client)).failure == "timeout"
        assert (await ask(client)).text == "one two three four"
        client.close()
    assert server.num_connections == 2


async def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    client = client_for(f"http://127.0.0.1:{port}")
    reply = await ask(client)
    assert reply.failure == "connect"
    assert reply.message
    await client.connect(3)  # says nothing: each request will


async def test_an_answer_that_ends_with_its_connection():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    with ScriptedServer([head, text_event("one", "length"), event("[DONE]"), CLOSE]) as server:
        client = client_for(server.url)
        for _ in range(2):
            reply = await ask(client)
            assert (reply.failure, reply.text) == ("", "one")
    assert server.num_connections == 2


async def test_a_server_that_announces_before_it_answers():
    reply = await ask_once(b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD)
    assert (reply.failure, reply.text) == ("", "one two three four")


async def test_tokens_without_text_are_counted_and_have_a_time():
    usage = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    reply = await ask_once(stream(text_event("", "length"), usage, event("[DONE]")))
    assert (reply.failure, reply.num_tokens, len(reply.arrivals)) == ("", 1, 0)
    assert reply.ttft == reply.e2e > 0


# ── the other APIs ───────────────────────────────────────────────────────────────────────────


async def test_a_chat_stream():
    def delta(**fields):
        return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})

    request = Ask(messages=[Message("user", "hello")], num_output=4)
    reply = await ask_once(
        stream(
            delta(role="assistant", content=""),
            delta(reasoning_content="hm"),
            delta(content="hi"),
            delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
            event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            event("[DONE]"),
        ),
        request=request,
        api="openai-chat",
    )
    assert reply.failure == ""
    assert reply.text.startswith("hmhi")
    # The role is no token; no usage came, so events are what is counted.
    assert (reply.num_output, reply.num_tokens) == (None, 3)


async def test_what_llama_server_says_of_its_cache_counts():
    last = {
        "choices": [{"index": 0, "text": "", "finish_reason": "length"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
        "timings": {"prompt_n": 2, "cache_n": 7},
    }
    reply = await ask_once(stream(text_event("x"), event(last), event("[DONE]")))
    assert (reply.num_prompt, reply.num_cached) == (9, 7)


async def test_tgis_stream():
    def token(text, **fields):
        return event({"index": 1, "token": {"id": 5, "text": text, "special": False}, **fields})

    details = {"finish_reason": "length", "generated_tokens": 2, "input_length": 9}
    good = stream(token("a"), token(" b", generated_text="a b", details=details))
    reply = await ask_once(good, request=WORDS, api="tgi")
    assert (reply.failure, reply.text, reply.num_tokens, reply.num_prompt) == ("", "a b", 2, 9)
    failed = stream(token("a"), event({"error": "overloaded", "error_type": "overloaded"}))
    reply = await ask_once(failed, request=WORDS, api="tgi")
    assert (reply.failure, reply.message) == ("error in stream", "overloaded")


@pytest.mark.parametrize(
    ("api", "path", "body"),
    [
        (
            "openai-completions",
            "/v1/completions",
            {"choices": [{"text": "a b"}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
        ),
        (
            "openai-chat",
            "/v1/chat/completions",
            {
                "choices": [{"message": {"content": "a b"}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 2},
            },
        ),
        (
            "tgi",
            "/generate",
            {"generated_text": "a b", "details": {"generated_tokens": 2, "prefill": [1] * 9}},
        ),
    ],
)
async def test_whole_answers(api, path, body):
    request = Ask(messages=[Message("user", "x")], num_output=2) if "chat" in api else WORDS
    with ScriptedServer([whole("200 OK", json.dumps(body).encode())]) as server:
        client = client_for(server.url, api=api, streams=False)
        reply = await ask(client, request)
        client.close()
    assert server.requests[0].startswith(f"POST {path} HTTP".encode())
    assert (reply.failure, reply.text, reply.num_tokens, reply.num_prompt) == ("", "a b", 2, 9)
    assert reply.ttft == reply.e2e
    wrong = await ask_once(whole("200 OK", b"{}"), request=request, api=api, streams=False)
    assert wrong.failure == "garbage"


# ── what a server says of itself ─────────────────────────────────────────────────────────────


async def test_the_model_and_the_version_are_asked():
    models = whole("200 OK", b'{"object": "list", "data": [{"id": "some/model"}]}')
    missing = whole("404 No", b"")
    version = whole("200 OK", b'{"version": "0.9"}')
    with ScriptedServer([models], [missing], [version]) as server:
        client = client_for(server.url)
        assert await served_model(client) == "some/model"
        assert await server_version(client) == "0.9"
        client.close()
    with ScriptedServer([missing]) as server:
        client = client_for(server.url)
        assert await served_model(client) is None
        assert await server_version(client) == ""
        client.close()


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://a", "http://", "http://a:b"])
def test_what_is_no_url(url):
    with pytest.raises(UsageError, match="is no URL"):
        Address(url)
