"""Every route of the router by every fault: the status, JSON in the dialect's shape, no more."""

import json
import re

import pytest
from backplane_core.control import ServerLaunch
from backplane_server.app import create_app
from backplane_server.services.services import Services
from backplane_server.web.auth import ALWAYS_OPEN
from backplane_server.web.errors import dialect_of

KEY = {"authorization": "Bearer right-key"}
LIMIT = 10_000_000
TALK = [{"role": "user", "content": "hello"}]
CHAT = {"messages": TALK, "max_tokens": 2}
NATIVE = {"inputs": "hello", "parameters": {"max_new_tokens": 2}}
# A body that every route with one takes.
BODIES = {
    "/": NATIVE,
    "/generate": NATIVE,
    "/generate_stream": NATIVE,
    "/tokenize": {"inputs": "hello"},
    "/detokenize": {"tokens": [104, 105]},
    "/chat_tokenize": {"messages": TALK},
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hello", "max_tokens": 2},
}
# Where its text stands, for faults inside of it.
TEXTS = {
    **dict.fromkeys(BODIES, "inputs"),
    "/detokenize": None,
    "/chat_tokenize": "messages",
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
}
PARAMETERS = {"/docs/{name:str}": "swagger-ui.css", "/v1/models/{model:path}": "some/model"}
LEAKS = re.compile(
    rb"0x[0-9a-f]{4,}|Traceback|site-packages|/[a-z_]+\.py|\.py\b|File \"|<class|object at|"
    rb"msgspec|litestar|backplane_server|backplane_core|/home|/tmp|/usr"
)


def _routes():
    app = create_app(Services(ServerLaunch(server_id="s", control_path="", model_id="m")))
    found = []
    for route in app.routes:
        path = route.path
        for template, value in PARAMETERS.items():
            path = path.replace(template, template.split("{")[0] + value)
        assert "{" not in path, f"{path}: which name is it to be tried with?"
        found += [(method, path) for method in sorted(route.methods - {"OPTIONS"})]
    return found


ROUTES = _routes()
POSTS = [path for method, path in ROUTES if method == "POST"]
GETS = [path for method, path in ROUTES if method == "GET"]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"]
ABSENT = sorted({(method, path) for method in METHODS for _, path in ROUTES} - set(ROUTES))
STREAMED = ["/", "/v1/chat/completions", "/v1/completions"]


def test_every_route_with_a_body_is_tried():
    assert set(BODIES) == set(POSTS)


@pytest.fixture(scope="module")
def keyed(stack_module):
    with stack_module.Stack(worker=False, api_keys=("right-key",), payload_limit=LIMIT) as running:
        running._client.headers.update(KEY)
        running.start_worker()
        yield running


def refused(response, path, status, *kinds):
    """The error's sentence, once all that must hold of every error does."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert not response.headers.keys() & {"server", "x-powered-by", "set-cookie"}
    assert not LEAKS.search(response.content), response.text
    body = response.json()
    if dialect_of(path) == "openai":
        assert body.keys() == {"error"}
        error = body["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert all(isinstance(error[name], str) for name in ("message", "type", "code"))
        sentence, kind = error["message"], error["type"]
    else:
        assert body.keys() == {"error", "error_type"}
        sentence, kind = body["error"], body["error_type"]
    assert sentence
    assert len(sentence) < 1000
    assert not kinds or kind in kinds
    return sentence


def encoded(path, **more):
    return json.dumps({**BODIES[path], **more}).encode()


def with_text(path, text):
    """A body with this, as it is, where its text stands."""
    mark = "THE-TEXT"
    talk = [{"role": "user", "content": mark}]
    body = {**BODIES[path], TEXTS[path]: talk if TEXTS[path] == "messages" else mark}
    return json.dumps(body).encode().replace(mark.encode(), text)


# ── who may ask, and how ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong-key", "Bearer RIGHT-KEY", "right-key"]
)
def test_without_the_key(keyed, method, path, authorization):
    headers = {} if authorization is None else {"authorization": authorization}
    request = keyed._client.build_request(method, keyed.url + path, headers=headers)
    if authorization is None:
        del request.headers["authorization"]
    response = keyed._client.send(request)
    if path in ALWAYS_OPEN:
        assert response.status_code == 200
        return
    refused(response, path, 401, "unauthorized", "authentication_error")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), ABSENT)
def test_a_method_that_the_route_does_not_have(keyed, method, path):
    response = keyed._client.request(method, keyed.url + path)
    refused(response, path, 405, "method_not_allowed", "invalid_request_error")
    allowed = set(response.headers["allow"].split(", "))
    own = {each for each, of in ROUTES if of == path}
    assert allowed == own | {"OPTIONS"} | ({"HEAD"} if "GET" in own else set())


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_its_body(keyed, path):
    got, head = keyed.get(path), keyed._client.head(keyed.url + path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    same = {"content-type", "location", "vary", "cache-control"}
    assert {each: head.headers.get(each) for each in same} == {
        each: got.headers.get(each) for each in same
    }


@pytest.mark.parametrize("path", sorted(set(POSTS) - set(GETS)))
def test_head_of_what_has_no_get(keyed, path):
    response = keyed._client.head(keyed.url + path)
    assert (response.status_code, response.content) == (405, b"")


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("host", ["a b", "a/?x=", "[", "a@b", "localhost:port", ""])
def test_a_host_that_is_none(keyed, method, path, host):
    response = keyed._client.request(
        method, keyed.url + path, headers={"host": host}, json=BODIES.get(path)
    )
    if path in ALWAYS_OPEN:
        assert response.status_code in {200, 400}
    elif response.headers.get("content-type") == "application/json":
        refused(response, path, 400, "bad_host", "invalid_request_error")
    else:
        assert response.status_code == 400, "uvicorn's own word on a malformed request"


# ── bodies ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", POSTS)
def test_the_body_of_all_this_is_right(keyed, path):
    assert keyed.post_raw(path, encoded(path)).status_code == 200


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nonsense",
        b"{'inputs': 'x'}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        b"\x00",
        b'{"a": 1} {"b": 2}',
        b'{"a": 1,}',
        b'{"a": "\n"}',
    ],
    ids=repr,
)
def test_not_json(keyed, path, data):
    sentence = refused(keyed.post_raw(path, data), path, 400, "validation", "invalid_request_error")
    assert "JSON" in sentence


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", ["temperature", "max_tokens", "parameters", "unheard_of"])
@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b'"\\ud800"', b'"\\udfff\\ud800"'])
def test_values_that_json_does_not_have(keyed, path, name, value):
    data = encoded(path)[:-1] + b', "%s": %s}' % (name.encode(), value)
    response = keyed.post_raw(path, data)
    if response.status_code != 200:
        # Half a character may stand where a number should: either fault may be told.
        refused(response, path, 400 if value[:1] != b'"' else response.status_code)
    else:
        assert value[:1] == b'"'
        assert name in response.headers["x-ignored-parameters"], "it was only skipped"


@pytest.mark.parametrize("path", [path for path in POSTS if TEXTS[path]])
@pytest.mark.parametrize(
    "text", [b"\\ud800", b"a\\udc00b", b"\\ud800\\ud800", b"\xed\xa0\x80", b"\xff"]
)
def test_text_with_half_a_character(keyed, path, text):
    sentence = refused(keyed.post_raw(path, with_text(path, text)), path, 400)
    assert "JSON" in sentence


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("data", [b"[]", b"null", b"5", b'"x"', b"true", b"{}", b'[{"inputs": 1}]'])
def test_json_of_another_shape(keyed, path, data):
    refused(keyed.post_raw(path, data), path, 422, "validation", "invalid_request_error")


@pytest.mark.parametrize("path", POSTS)
def test_fields_of_another_type_are_named(keyed, path):
    for name in BODIES[path]:
        for value in (5.5, {"a": 1}, [[[]]], True):
            if name == "parameters" and isinstance(value, dict):
                continue
            response = keyed.post_raw(path, encoded(path, **{name: value}))
            sentence = refused(response, path, 422, "validation", "invalid_request_error")
            assert f"`{name}" in sentence, (name, value, sentence)
            if dialect_of(path) == "openai":
                assert response.json()["error"]["param"].startswith(name)


@pytest.mark.parametrize("path", POSTS)
def test_a_missing_field_is_named(keyed, path):
    name = next(iter(BODIES[path]))
    rest = {key: value for key, value in BODIES[path].items() if key != name}
    sentence = refused(keyed.post(path, rest), path, 422, "validation", "invalid_request_error")
    assert f"`{name}`" in sentence


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_too_large(keyed, path):
    response = keyed.post_raw(path, b" " * (LIMIT + 1))
    sentence = refused(response, path, 413, "validation", "invalid_request_error")
    assert str(LIMIT) in sentence


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "json",
        "",
    ],
)
def test_another_media_type(keyed, path, kind):
    response = keyed.post_raw(path, encoded(path), content_type=kind)
    assert "application/json" in refused(response, path, 415)
    assert keyed.post_raw(path, encoded(path), content_encoding="gzip").status_code == 415


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", ["unheard_of", "messages", "inputs", "prompt", "tools", "stop"])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
def test_deep_nesting(keyed, path, name, brackets):
    opening, closing = brackets
    for depth in (500, 100_000):
        nested = opening * depth + b"1" + closing * depth
        data = encoded(path)[:-1] + b', "%s": %s}' % (name.encode(), nested)
        response = keyed.post_raw(path, data)
        if response.status_code != 200:
            assert response.status_code in {400, 422}
            refused(response, path, response.status_code)
        else:
            assert name not in BODIES[path]
    assert keyed.get("/health").status_code == 200


@pytest.mark.parametrize("path", [path for path in POSTS if "tokenize" not in path])
def test_a_million_stop_strings(keyed, path):
    stops = b"[" + b",".join([b'"ab"'] * 1_000_000) + b"]"
    if path.startswith("/v1/"):
        data = encoded(path)[:-1] + b', "stop": ' + stops + b"}"
    else:
        data = b'{"inputs": "hello", "parameters": {"stop": ' + stops + b"}}"
    sentence = refused(keyed.post_raw(path, data), path, 422, "validation", "invalid_request_error")
    assert "stop`" in sentence


@pytest.mark.parametrize("path", POSTS)
def test_fields_nobody_knows_are_taken_and_named(keyed, path):
    odd = {"unheard_of": 1, "x\r\nset-cookie: a=b": 2, "é" * 200: [3], "__class__": {"a": "b"}}
    response = keyed.post(path, {**BODIES[path], **odd})
    assert response.status_code == 200
    ignored = response.headers["x-ignored-parameters"]
    assert "unheard_of" in ignored
    assert ignored.isascii()
    assert "set-cookie" not in response.headers
    many = {f"field-{number}": number for number in range(5000)}
    response = keyed.post(path, {**BODIES[path], **many})
    assert response.status_code == 200
    assert len(response.headers["x-ignored-parameters"]) < 2000


@pytest.mark.parametrize("path", POSTS)
def test_the_same_field_twice(keyed, path):
    data = encoded(path)[:-1] + b"," + encoded(path)[1:]
    assert keyed.post_raw(path, data).status_code in {200, 422}


@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_is_refused_by_its_status_too(keyed, path):
    wrong = {"temperature": -1.0} if path.startswith("/v1/") else {}
    parameters = {} if path.startswith("/v1/") else {"parameters": {"temperature": -1.0}}
    response = keyed.post_raw(path, encoded(path, stream=True, **wrong, **parameters))
    assert "temperature`" in refused(response, path, 422)


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("query", ["?a=%ff", "?" + "a=1&" * 2000, "?%00", "?a[]=1", "?=", "#x"])
def test_queries_change_nothing(keyed, path, query):
    assert keyed.get(path + query).status_code == keyed.get(path).status_code


@pytest.mark.parametrize(
    "path",
    ["/nope", "/v1/nope", "/v1", "/..%2f", "/%00", "/\u00e9", "/v1/models/"],
)
def test_paths_that_are_none(keyed, path):
    response = keyed.get(path)
    if path == "/v1/models/":
        assert response.status_code == 200
        return
    refused(response, path, 404, "not_found", "invalid_request_error")


# ── raw HTTP ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "lines",
    [
        [b"authorization: Bearer right-key", b"authorization: Bearer right-key"],
        [b"authorization: Bearer wrong", b"authorization: Bearer right-key"],
        [b"authorization: Bearer right-key", b"Authorization: Basic eDp5"],
        [b"authorization: Bearer right-key\x00"],
        [b"authorization: Bearer", b" right-key"],
        [b"authorization : Bearer right-key"],
        [b"x-authorization: Bearer right-key"],
    ],
    ids=repr,
)
def test_more_or_less_than_one_authorization(keyed, lines):
    head = b"\r\n".join([b"GET /info HTTP/1.1", b"host: localhost", *lines, b"", b""])
    with keyed.connect() as raw:
        raw.sendall(head)
        assert raw.recv(1000).split()[1] in {b"400", b"401"}


@pytest.mark.parametrize(
    "lines",
    [
        [b"content-length: 5", b"content-length: 6"],
        [b"content-length: 5", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked, identity"],
        [b"transfer-encoding: xchunked", b"content-length: 3"],
        [b"content-length: -1"],
        [b"content-length: +5"],
        [b"content-length: 5 5"],
        [b"content-length: 0x5"],
        [b"bad header"],
        [b"a\x00b: c"],
    ],
    ids=repr,
)
def test_lengths_that_two_servers_could_read_differently(keyed, lines):
    """One request and its end: what follows it must not be taken for another request."""
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
    first = [b"POST /generate HTTP/1.1", b"host: localhost", b"content-type: application/json"]
    with keyed.connect() as raw:
        raw.sendall(b"\r\n".join([*first, *lines, b"", b""]) + smuggled)
        answer = b""
        while data := raw.recv(4000):
            answer += data
            if b"\r\n\r\n" in answer:
                break
        assert answer.split()[1] in {b"400", b"401"}
    assert keyed.get("/health").status_code == 200


def test_after_all_that(keyed):
    assert keyed.get("/health").status_code == 200
    assert "Traceback" not in keyed.log()
    assert "smuggled" not in keyed.log()
    assert "right-key" not in keyed.log()
