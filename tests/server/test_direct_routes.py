"""The short ways past the framework and past ASGI's two-part answers: to the same effect."""

import asyncio
import json
import re
from types import SimpleNamespace

import pytest
from backplane_server.web.client_link import ClientLink

TALK = [{"role": "user", "content": "hello"}]
NATIVE = {"inputs": "hello", "parameters": {"max_new_tokens": 2}}
BODIES = {
    "/generate": NATIVE,
    "/generate_stream": NATIVE,
    "/tokenize": {"inputs": "hello"},
    "/detokenize": {"tokens": [104, 105]},
    "/chat_tokenize": {"messages": TALK},
    "/v1/chat/completions": {"messages": TALK, "max_tokens": 2, "temperature": 0},
    "/v1/completions": {"prompt": "hello", "max_tokens": 2, "temperature": 0},
}
JSON = {"content_type": "application/json"}
# What a request can say, and how its content is named.
SAID = {
    "as it should be": (lambda body: json.dumps(body).encode(), JSON),
    "with a name nobody knows": (lambda body: json.dumps({**body, "nobody": 1}).encode(), JSON),
    "no JSON": (lambda body: b"{", JSON),
    "another shape": (lambda body: b'{"inputs": 5, "messages": 5, "prompt": 5.5}', JSON),
    "nothing": (lambda body: b"", JSON),
    "no JSON by its name": (lambda body: b"{}", {"content_type": "text/plain"}),
    "too much": (lambda body: b" " * 2_000_001, JSON),
}
CHANGING = re.compile(
    r'"(?:id|created|model_created)":("[^"]*"|\d+)|(?:x-[a-z-]*time[a-z-]*|x-request-id|date)'
)


def told(response):
    """Status, headers and body without what differs from request to request."""
    headers = {
        name: "" if CHANGING.fullmatch(name) else value for name, value in response.headers.items()
    }
    return response.status_code, headers, CHANGING.sub("", response.text)


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("path", BODIES)
def test_a_path_is_answered_alike_directly_and_by_the_framework(stack, path, said):
    make, headers = SAID[said]
    content = make(BODIES[path])
    stack.post_raw(path, content, **headers)  # from here on its prompt is in the cache
    direct, framed = (told(stack.post_raw(each, content, **headers)) for each in (path, f"{path}/"))
    assert direct == framed
    assert (direct[0] == 200) == (said in {"as it should be", "with a name nobody knows"})


@pytest.mark.parametrize("path", ["/v1/models", "/info", "/", "/docs/", "/health", "/nope"])
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_a_whole_answer_has_the_headers_that_asgi_would_have_sent(stack, path, accept):
    headers = {"accept": accept, "origin": "http://localhost"}
    whole = stack.get(path, headers=headers)
    bare = stack._client.head(stack.url + path, headers=headers)  # HEAD goes through ASGI's `send`
    assert told(whole)[:2] == told(bare)[:2]
    assert whole.headers["access-control-allow-origin"] == "http://localhost"
    assert "origin" in whole.headers["vary"]


def raw_request(path, body, *headers, version="1.1"):
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "host: localhost", "content-type: application/json"]
    lines += [*headers, f"content-length: {len(data)}", "", ""]
    return "\r\n".join(lines).encode(), data


def read_answers(connection, count):
    """So many answers of a connection, and whether it ended after them."""
    data, found = b"", []
    while True:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1]) if end else 0
        if end and len(rest) >= length:
            found.append((head, rest[:length]))
            data = rest[length:]
            if len(found) == count:
                return found
            continue
        more = connection.recv(1 << 16)
        assert more, data
        data += more


def test_requests_that_come_together_are_answered_in_their_order(stack):
    with stack.connect() as connection:
        parts = [raw_request("/tokenize", {"inputs": "x" * length}) for length in (3, 1, 2)]
        connection.sendall(b"".join(head + data for head, data in parts))
        answers = read_answers(connection, 3)
        assert [len(json.loads(body)) for _, body in answers] == [4, 2, 3]
        head, data = raw_request("/tokenize", {"inputs": "later"})
        connection.sendall(head + data)
        [(_, body)] = read_answers(connection, 1)
        assert len(json.loads(body)) == 6


@pytest.mark.parametrize(
    ("header", "version"), [(("connection: close",), "1.1"), ((), "1.0"), (("x: y",), "1.1")]
)
def test_a_connection_ends_after_an_answer_where_it_is_to(stack, header, version):
    with stack.connect() as connection:
        head, data = raw_request("/tokenize", {"inputs": "hi"}, *header, version=version)
        connection.sendall(head + data)
        [(answer, _)] = read_answers(connection, 1)
        closes = header == ("connection: close",) or version == "1.0"
        assert (b"\r\nconnection: close" in answer) == closes
        if closes:
            assert connection.recv(1) == b""


@pytest.mark.parametrize("together", [True, False])
def test_who_asks_before_sending_a_body_is_answered_once(stack, together):
    with stack.connect() as connection:
        head, data = raw_request("/tokenize", {"inputs": "hi"}, "expect: 100-continue")
        if together:
            connection.sendall(head + data)
        else:
            connection.sendall(head)
            assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(data)
        [(answer, body)] = read_answers(connection, 1)
        assert answer.startswith(b"HTTP/1.1 200")
        assert len(json.loads(body)) == 3


def test_a_client_with_a_large_body_that_leaves_is_noticed(stack_module):
    with stack_module.Stack(settings={"step_seconds": 0.05}) as slow:
        body = {
            "inputs": "x" * 100,
            "parameters": {"max_new_tokens": 1000},
        }
        body["padding"] = " " * 150_000  # beyond what uvicorn reads without being asked to go on
        with slow.connect() as connection:
            head, data = raw_request("/generate", body)
            connection.sendall(head + data)
            stack_module.wait_until(lambda: slow.metrics()["tgi_batch_current_size"] == 1)
        stack_module.wait_until(lambda: slow.metrics()["tgi_batch_current_size"] == 0)
        assert slow.metrics()['tgi_request_failure{err="dropped"}'] == 1


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
def test_no_header_becomes_two(value):
    written = []
    cycle = SimpleNamespace(
        default_headers=[], keep_alive=True, message_event=asyncio.Event(), on_response=None
    )
    transport = SimpleNamespace(write=written.append)
    link = ClientLink(SimpleNamespace(transport=transport), cycle, speaks_chunks=True)
    with pytest.raises(ValueError, match="line break"):
        link.respond(200, [(b"x-name", value)], b"")
    assert written == []
