"""Each error of section 1.4 as it reaches a client, in its route's shape and with its status."""

import socket
import time

import httpx
import pytest
from contract.conftest import ECHO
from contract.wire import CHAT, COMPLETIONS, DONE, events, get, post, user
from deployment import deployed, wait_until

NATIVE = ("/", "/generate", "/generate_stream")
OPENAI = {CHAT: {"messages": user("hello")}, COMPLETIONS: {"prompt": "hello"}}
ROUTES = (*NATIVE, *OPENAI)
CODES = {
    400: "malformed_json",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_body",
}
BODIES = {**{route: {"inputs": "hello"} for route in NATIVE}, **OPENAI}


def told(response: httpx.Response, route: str) -> str:
    """The sentence of an error in the route's own shape."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    if route.startswith("/v1/"):
        assert {"message", "type", "param", "code"} <= set(body["error"])
        return body["error"]["message"]
    assert list(body)[:2] == ["error", "error_type"]
    return body["error"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b'{"inputs": ', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"inputs": NaN}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", None, 415),
        (b"{}", "application/json", 422),
        (b"[]", "application/json", 422),
        (b'{"inputs": 1, "messages": 1, "prompt": {}}', "application/json", 422),
        (b'{"inputs": "' + b"x" * 2_000_001 + b'"}', "application/json", 413),
    ],
    ids=["syntax", "not UTF-8", "NaN", "text", "no type", "empty", "array", "types", "large"],
)
def test_a_bad_body_is_told_as_json(echo, route, content, content_type, status):
    """TGI answers these in plain text, which breaks its own client."""
    headers = {"content-type": content_type} if content_type else {}
    response = httpx.post(echo.url + route, content=content, headers=headers, timeout=30)
    assert response.status_code == status, response.text
    assert told(response, route)
    body = response.json()
    if route.startswith("/v1/"):
        assert body["error"]["type"] == "invalid_request_error"
        assert body["error"]["code"] == CODES[status]
    else:
        assert body["error_type"] == "validation"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_by_another_name_is_taken(echo, kind):
    response = httpx.post(
        echo.url + "/generate",
        content=b'{"inputs": "hello", "parameters": {}}',
        headers={"content-type": kind},
    )
    assert response.json() == {"generated_text": "hello"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/generate", 405), ("POST", "/info", 405)],
)
def test_what_is_not_there_says_so(echo, method, path, status):
    response = httpx.request(method, echo.url + path)
    assert response.status_code == status
    assert told(response, path)
    if status == 405:
        assert response.headers["allow"]


def test_validation_in_both_shapes(echo):
    native = post(echo, "/generate", {"inputs": "x", "parameters": {"temperature": 0}})
    assert native.status_code == 422
    assert native.json()["error_type"] == "validation"
    assert native.json()["error"].startswith("Input validation error: `temperature`")
    openai = post(echo, CHAT, {**OPENAI[CHAT], "temperature": -1})
    assert openai.status_code == 422
    error = openai.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "temperature")


def test_template_errors_belong_to_the_chat_route(echo):
    """A template that refuses: a role it does not know is no server's fault."""
    with deployed(
        *ECHO, "--chat-template", "{{ raise_exception('only users may speak') }}"
    ) as refusing:
        response = post(refusing, CHAT, OPENAI[CHAT])
        assert response.status_code == 422
        assert "only users may speak" in told(response, CHAT)
        native = post(refusing, "/chat_tokenize", OPENAI[CHAT])
        assert native.status_code == 422
        assert native.json()["error_type"] == "template_error"
        assert native.json()["error"].startswith("Template error: ")
        assert post(refusing, "/generate", BODIES["/generate"]).status_code == 200
        failures = refusing.metric('tgi_request_failure{err="template"}')
        assert failures == 1, "of /chat_tokenize only that it was asked is counted"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("tool_choice", {"type": "function", "function": {"name": "nobody"}}),
        ("tool_choice", "nobody"),
    ],
    ids=["object", "name"],
)
def test_a_tool_nobody_defined_is_refused(demo, parameter, value):
    tool = {"type": "function", "function": {"name": "somebody", "parameters": {}}}
    response = post(demo, CHAT, {**OPENAI[CHAT], "tools": [tool], parameter: value})
    assert response.status_code == 422
    assert "nobody" in told(response, CHAT)


@pytest.mark.parametrize(("field", "value"), [("suffix", "x"), ("prompt", ["a"] * 5)])
def test_what_completions_refuse(echo, field, value):
    response = post(echo, COMPLETIONS, {**OPENAI[COMPLETIONS], field: value})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == field


@pytest.fixture(scope="module")
def narrow():
    """One request at a time, each slow; a prompt that fails in the engine."""
    with deployed(
        *ECHO,
        *("--max-concurrent-requests", "1"),
        *("--echo.step-seconds", "0.05", "--echo.fail-on", "FAIL"),
    ) as deployment:
        yield deployment


@pytest.mark.parametrize("route", ROUTES)
def test_overload_is_a_429_with_a_time_to_try_again(narrow, route):
    body = {"inputs": "x" * 100, "parameters": {}}
    with httpx.stream("POST", narrow.url + "/generate_stream", json=body, timeout=30) as first:
        running = first.iter_bytes()  # held, as the stream ends with it
        next(running)
        response = post(narrow, route, {**BODIES[route], "stream": route == "/"})
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        sentence = told(response, route)
        if route in NATIVE:
            assert response.json()["error_type"] == "overloaded"
            assert sentence.startswith("Model is overloaded")
        else:
            assert response.json()["error"]["type"] == "rate_limit_error"
    wait_until(lambda: narrow.metric("tgi_batch_current_size") == 0, 10, "it was cancelled")


@pytest.mark.parametrize("route", ["/generate", CHAT])
def test_a_failed_generation_is_a_424(narrow, route):
    body = {"inputs": "FAIL here", "parameters": {}, "messages": user("FAIL here")}
    response = post(narrow, route, body)
    assert response.status_code == 424
    sentence = told(response, route)
    assert "Traceback" not in sentence
    if route == "/generate":
        assert response.json()["error_type"] == "generation"
        assert sentence.startswith("Request failed during generation: ")


def test_a_failure_after_the_first_byte_is_an_event(narrow):
    body = {"inputs": "FAIL here", "parameters": {}}
    response = post(narrow, "/generate_stream", body)
    assert response.status_code == 200
    *_, last = events(response)
    assert list(last) == ["error", "error_type"]
    assert last["error_type"] == "generation"
    response = post(narrow, CHAT, {"messages": user("FAIL here"), "stream": True})
    *_, error, end = events(response)
    assert error["error"]["http_status_code"] == 424
    assert end == DONE


def test_unready_is_a_503_that_tells_how_far():
    with deployed(*ECHO, "--echo.load-seconds", "30", wait=False) as loading:
        wait_until(lambda: loading.status() == 503, 30, "the server is up before the model")
        health = get(loading, "/health")
        assert health.json()["error_type"] == "healthcheck"
        assert health.json()["error"].startswith("unhealthy")
        assert health.json()["progress"]
        assert get(loading, "/health/live").status_code == 200
        assert get(loading, "/ping").status_code == 503
        response = post(loading, "/generate", BODIES["/generate"])
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1


def test_a_client_that_leaves_is_cancelled(narrow):
    """TGI looks at the client when a token is there; here the worker is told at once."""
    body = b'{"inputs": "' + b"x" * 1000 + b'", "parameters": {}}'
    head = f"POST /generate HTTP/1.1\r\nHost: {narrow.url.removeprefix('http://')}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = narrow.url.removeprefix("http://").split(":")
    before = narrow.metric("backplane_cancelled_sequences")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        wait_until(lambda: narrow.metric("tgi_batch_current_size") == 1, 10, "it runs")
    wait_until(
        lambda: narrow.metric("backplane_cancelled_sequences") == before + 1, 10, "cancelled"
    )
    wait_until(lambda: narrow.metric("tgi_batch_current_size") == 0, 10, "and nothing is left")


@pytest.mark.slow
def test_a_silent_stream_gets_a_comment_every_15_seconds():
    with deployed(*ECHO, "--echo.step-seconds", "16") as slow:
        body = {"inputs": "hi", "parameters": {"max_new_tokens": 2}}
        started = time.monotonic()
        response = post(slow, "/generate_stream", body)
        assert time.monotonic() - started > 15
        first, comment, last, rest = response.content.split(b"\n\n")
        assert first.startswith(b'data: {"index":1,')
        assert comment == b":"
        assert last.startswith(b'data: {"index":2,')
        assert rest == b""


@pytest.fixture(scope="module")
def limited():
    """Limits that a request can meet in a moment."""
    with deployed(
        *ECHO,
        *("--request-timeout", "1", "--payload-limit", "2000", "--max-client-batch-size", "2"),
        *("--disable-grammar-support", "--echo.step-seconds", "0.1"),
    ) as deployment:
        yield deployment


@pytest.mark.parametrize("route", ["/generate", *OPENAI])
def test_a_request_that_takes_too_long_is_a_504(limited, route):
    text = "x" * 100
    body = {"inputs": text, "parameters": {}, "messages": user(text), "prompt": text}
    response = post(limited, route, body)
    assert response.status_code == 504
    assert "--request-timeout" in told(response, route)


def test_a_stream_that_takes_too_long_ends_with_the_error(limited):
    body = {"inputs": "x" * 100, "parameters": {}}
    *tokens, last = events(post(limited, "/generate_stream", body))
    assert len(tokens) > 3
    assert last["error_type"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("route", "body", "status", "word"),
    [
        (CHAT, {"messages": user("x" * 3000)}, 413, "--payload-limit"),
        (COMPLETIONS, {"prompt": ["a", "b", "c"]}, 422, "--max-client-batch-size"),
        (
            "/generate",
            {"inputs": "x", "parameters": {"grammar": {"type": "regex", "value": "a"}}},
            422,
            "--disable-grammar-support",
        ),
        (
            CHAT,
            {"messages": user("x"), "response_format": {"type": "json_object"}},
            422,
            "--disable-grammar-support",
        ),
    ],
    ids=["body", "prompts", "grammar", "format"],
)
def test_a_limit_names_the_flag_that_sets_it(limited, route, body, status, word):
    response = post(limited, route, body)
    assert response.status_code == status
    assert word in told(response, route)
