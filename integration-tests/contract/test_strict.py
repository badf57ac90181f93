"""`--tgi-strict` beside the same deployment without it: each thing it restores, both ways."""

from collections.abc import Iterator

import httpx
import pytest
from contract.conftest import ECHO
from contract.wire import (
    CHAT,
    COMPLETIONS,
    DONE,
    answered,
    events,
    generated,
    get,
    post,
    streamed,
    user,
)
from deployment import Deployment, deployed, wait_until

KEY = "sesame"
GREEDY = {"temperature": 0}
HELLO = {**GREEDY, "messages": user("hello")}
# Routes without a key in TGI, by their method (section 1.1).
OPEN_IN_TGI = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/ping"),
    ("GET", "/info"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/docs/"),
    ("GET", "/api-doc/openapi.json"),
    ("POST", "/chat_tokenize"),
]
KEPT_IN_TGI = [
    ("POST", "/"),
    ("POST", "/generate"),
    ("POST", "/generate_stream"),
    ("POST", "/tokenize"),
    ("POST", CHAT),
    ("POST", COMPLETIONS),
]
REFUSED_STREAMS = {
    "/generate_stream": {"inputs": "hello", "parameters": {"temperature": 0}},
    "/": {"inputs": "hello", "stream": True, "parameters": {"best_of": 2, "do_sample": True}},
    CHAT: {"messages": user("hello"), "stream": True, "max_tokens": 10**6},
    COMPLETIONS: {"prompt": "hello", "stream": True, "max_tokens": 10**6},
}


@pytest.fixture(scope="module", params=["ours", "TGI's"])
def keyed(request) -> Iterator[tuple[Deployment, bool]]:
    is_strict = request.param == "TGI's"
    arguments = (*ECHO, "--api-key", KEY, *(["--tgi-strict"] if is_strict else []))
    with deployed(*arguments, wait=False) as deployment:
        wait_until(lambda: deployment.status("/health/ready") == 200, 60, "ready")
        yield deployment, is_strict


# ── 1: what is wrong with a stream's request ──────────────────────────────────────────────


@pytest.mark.parametrize("route", REFUSED_STREAMS)
def test_a_streams_refusal_has_its_status_or_stands_in_the_stream(echo, strict, route):
    body = REFUSED_STREAMS[route]
    assert post(echo, route, body).status_code == 422
    response = post(strict, route, body)
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    first, *rest = events(response)
    if route.startswith("/v1/"):
        assert set(first["error"]) >= {"message", "http_status_code"}
        assert first["error"]["http_status_code"] == 422
        assert rest == [DONE]
    else:
        assert first["error_type"] == "validation"
        assert first["error"].startswith("Input validation error: ")
        assert rest == []


@pytest.mark.parametrize("route", ["/generate_stream", CHAT])
def test_a_full_server_says_so_in_the_stream(route):
    with deployed(
        *ECHO, "--tgi-strict", "--max-concurrent-requests", "1", "--echo.step-seconds", "0.05"
    ) as narrow:
        body = {"inputs": "x" * 100, "parameters": {}}
        with httpx.stream("POST", narrow.url + "/generate_stream", json=body, timeout=30) as first:
            running = first.iter_bytes()  # held, as the stream ends with it
            next(running)
            response = post(narrow, route, {**body, "messages": user("x"), "stream": True})
            assert response.status_code == 200
            error = events(response)[0]
            if route == CHAT:
                assert error["error"]["http_status_code"] == 422, "TGI's, whatever happened"
            else:
                assert error["error_type"] == "overloaded"
            assert post(narrow, "/generate", body).status_code == 429, "whole answers never did"


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (CHAT, {"messages": [], "stream": True}),
        (COMPLETIONS, {"prompt": "x", "suffix": "y", "stream": True}),
        (COMPLETIONS, {"prompt": ["x"] * 5, "stream": True}),
        ("/generate_stream", {"parameters": {}}),
    ],
    ids=str,
)
def test_what_had_a_status_in_tgi_keeps_it(echo, strict, route, body):
    assert post(echo, route, body).status_code == 422
    assert post(strict, route, body).status_code == 422


# ── 2 and 9: routes that want no key ──────────────────────────────────────────────────────


@pytest.mark.parametrize(("method", "path"), OPEN_IN_TGI)
def test_routes_that_are_open_in_tgi(keyed, method, path):
    deployment, is_strict = keyed
    body = {"messages": user("hi")} if method == "POST" else None
    response = httpx.request(method, deployment.url + path, json=body)
    assert response.status_code == (200 if is_strict else 401)
    with_key = {"authorization": f"Bearer {KEY}"}
    response = httpx.request(method, deployment.url + path, json=body, headers=with_key)
    assert response.status_code == 200


@pytest.mark.parametrize(("method", "path"), KEPT_IN_TGI)
def test_routes_that_want_a_key_everywhere(keyed, method, path):
    deployment, _ = keyed
    body = {"inputs": "hi", "messages": user("hi"), "prompt": "hi"}
    for headers in ({}, {"authorization": f"Bearer {KEY.upper()}"}, {"authorization": KEY}):
        response = httpx.request(method, deployment.url + path, json=body, headers=headers)
        assert response.status_code == 401
    with_key = {"authorization": f"Bearer {KEY}"}
    response = httpx.request(method, deployment.url + path, json=body, headers=with_key)
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_the_probes_never_want_a_key(keyed, path):
    assert get(keyed[0], path).status_code == 200


# ── 3 to 7: OpenAI's routes ───────────────────────────────────────────────────────────────


def reasons(stream: list) -> list[str]:
    return [
        one["finish_reason"]
        for chunk in stream
        if chunk != DONE
        for one in chunk["choices"]
        if one["finish_reason"]
    ]


def test_the_end_of_a_streamed_completion(echo, strict):
    body = {**GREEDY, "prompt": "hello", "stream": True}
    assert reasons(streamed(echo, COMPLETIONS, body)) == ["stop"]
    assert reasons(streamed(strict, COMPLETIONS, body)) == ["eos_token"]
    whole = {**GREEDY, "prompt": "hello"}
    assert answered(strict, COMPLETIONS, whole)["choices"][0]["finish_reason"] == "stop"


def test_the_end_of_a_stopped_chat(echo, strict):
    body = {**GREEDY, "messages": user("hello world"), "stop": ["o w"]}
    (ours,) = answered(echo, CHAT, body)["choices"]
    (tgis,) = answered(strict, CHAT, body)["choices"]
    assert (ours["message"]["content"], ours["finish_reason"]) == ("hell", "stop")
    assert (tgis["message"]["content"], tgis["finish_reason"]) == ("hello w", "stop_sequence")
    assert reasons(streamed(strict, CHAT, {**body, "stream": True})) == ["stop_sequence"]


def test_a_stop_string_in_a_completion(echo, strict):
    body = {**GREEDY, "prompt": "hello world", "stop": ["o w"]}
    assert answered(echo, COMPLETIONS, body)["choices"][0]["text"] == "hell"
    assert answered(strict, COMPLETIONS, body)["choices"][0]["text"] == "hello w"


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS, "/generate"])
def test_an_end_on_the_last_allowed_token(echo, strict, route):
    def reason(deployment):
        if route == "/generate":
            return generated(deployment, "hello", max_new_tokens=6)["details"]["finish_reason"]
        body = {**HELLO, "prompt": "hello", "max_tokens": 6}
        return answered(deployment, route, body)["choices"][0]["finish_reason"]

    assert reason(echo) == ("eos_token" if route == "/generate" else "stop")
    assert reason(strict) == "length"


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [False, True])
def test_ids(echo, strict, route, stream):
    body = {**HELLO, "prompt": "hello", "stream": stream}

    def ids(deployment):
        if not stream:
            return {answered(deployment, route, body)["id"]}
        return {chunk["id"] for chunk in streamed(deployment, route, body) if chunk != DONE}

    (ours,) = ids(echo)
    assert ours
    assert ids(strict) == {""}


def test_roles_of_a_chats_deltas(echo, strict):
    def roles(deployment):
        stream = streamed(deployment, CHAT, {**HELLO, "stream": True})
        deltas = [chunk["choices"][0]["delta"] for chunk in stream if chunk != DONE]
        return [delta.get("role") for delta in deltas]

    assert roles(echo)[0] == "assistant"
    assert set(roles(echo)[1:]) == {None}
    assert set(roles(strict)) == {"assistant"}


# ── 8 and 10 ──────────────────────────────────────────────────────────────────────────────


def test_any_page_may_ask_a_strict_server_on_loopback(echo, strict):
    origin = {"origin": "https://page.example"}
    assert "access-control-allow-origin" not in get(echo, "/info", **origin).headers
    assert get(strict, "/info", **origin).headers["access-control-allow-origin"] == "*"
    headers = {**origin, "access-control-request-method": "POST"}
    preflight = httpx.options(strict.url + "/generate", headers=headers)
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "POST" in preflight.headers["access-control-allow-methods"]


def test_prompt_logprobs_want_their_flag(echo, strict):
    asked = {"decoder_input_details": True, "max_new_tokens": 1}
    assert len(generated(echo, "hey", **asked)["details"]["prefill"]) == 4
    assert generated(strict, "hey", **asked)["details"]["prefill"] == []
    with deployed(*ECHO, "--tgi-strict", "--enable-prefill-logprobs") as enabled:
        assert len(generated(enabled, "hey", **asked)["details"]["prefill"]) == 4


# ── what strict leaves alone ──────────────────────────────────────────────────────────────


def test_a_strict_server_is_no_worse_elsewhere(strict):
    """The rest is Backplane's way always: the limits exact, the errors JSON, one string a stop."""
    assert generated(strict, "x" * 2000, max_new_tokens=1500)["details"]["generated_tokens"] == 1500
    refused = httpx.post(strict.url + "/generate", content=b"{", headers={"content-type": "x/y"})
    assert refused.json()["error_type"] == "validation"
    assert generated(strict, "hello world", stop="o w")["generated_text"] == "hello w"
    body = {**HELLO, "top_p": 1.0, "stream_options": None}
    assert answered(strict, CHAT, body)["choices"][0]["message"]["content"] == "hello"
    tools = [{"type": "function", "function": {"name": "ping"}}]
    assert post(strict, CHAT, {**HELLO, "tools": tools}).status_code == 200


def test_a_failure_in_a_strict_stream_has_tgis_shape():
    with deployed(*ECHO, "--tgi-strict", "--echo.fail-on", "FAIL") as failing:
        body = {**GREEDY, "messages": user("FAIL"), "stream": True}
        *_, error, end = streamed(failing, CHAT, body)
        assert set(error["error"]) == {"message", "http_status_code"}
        assert error["error"]["http_status_code"] == 422, "TGI's, whatever happened"
        assert end == DONE
        native = {"inputs": "FAIL", "parameters": {}}
        *_, error = streamed(failing, "/generate_stream", native)
        assert error["error_type"] == "generation"
        assert post(failing, CHAT, {**body, "stream": False}).status_code == 424
