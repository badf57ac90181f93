"""`tgi_strict`: what is wrong with a stream's request stands in the stream, as TGI has it."""

import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TALK = [{"role": "user", "content": "hello"}]
# A value too large on each route that streams, and the field's name.
WRONG = {
    "/generate_stream": ({"inputs": "hello", "parameters": {"temperature": 0.0}}, "temperature"),
    "/": ({"inputs": "hello", "stream": True, "parameters": {"truncate": 9999}}, "truncate"),
    CHAT: ({"messages": TALK, "stream": True, "max_tokens": 10**6}, "max_tokens"),
    TEXT: ({"prompt": "hello", "stream": True, "max_tokens": 10**6}, "max_tokens"),
}


@pytest.fixture(scope="module")
def strict(stack_module):
    settings = {"fail_on": "please fail"}
    with stack_module.Stack(tgi_strict=True, settings=settings) as running:
        yield running


def error_of(stack, path, body):
    """The only event's error, in TGI's own shape and nothing more."""
    response, events = stack.events(path, body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-request-id"]
    if path.startswith("/v1/"):
        assert events[1:] == ["[DONE]"]
        assert set(events[0]) == {"error"}
        assert set(events[0]["error"]) == {"message", "http_status_code"}
        assert events[0]["error"]["http_status_code"] == 422
        return events[0]["error"]["message"]
    assert len(events) == 1
    assert events[0].keys() == {"error", "error_type"}
    return events[0]["error"]


@pytest.mark.parametrize("path", WRONG)
def test_a_refusal_stands_in_the_stream(strict, stack, path):
    body, name = WRONG[path]
    sentence = error_of(strict, path, body)
    assert sentence.startswith("Input validation error: ")
    assert name in sentence
    assert stack.post(path, body).status_code == 422, "without it, the status says so"


@pytest.mark.parametrize("path", WRONG)
def test_it_is_counted_as_the_failure_it_is(strict, path):
    before = strict.metrics()
    error_of(strict, path, WRONG[path][0])
    now = strict.metrics()
    for name, grown in (
        ("tgi_request_count", 1),
        ("tgi_request_success", 0),
        ('tgi_request_failure{err="validation"}', 1),
        ("backplane_requests_in_flight", 0),
    ):
        assert now[name] - before[name] == grown, name


@pytest.mark.parametrize("path", ["/", CHAT, TEXT])
def test_whole_answers_keep_their_status(strict, path):
    body = {**WRONG[path][0], "stream": False}
    assert strict.post(path, body).status_code == 422
    assert strict.post("/generate", WRONG["/generate_stream"][0]).status_code == 422


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/generate_stream", b"{", 400),
        ("/generate_stream", b"{}", 422),
        (CHAT, b'{"stream": true}', 422),
        (TEXT, b'{"stream": true, "prompt": {}}', 422),
        ("/", b" " * 2_000_001, 413),
        (CHAT, b'{"stream": true, "messages": []}', 422),
        (TEXT, b'{"stream": true, "prompt": "a", "suffix": "b"}', 422),
        (TEXT, b'{"stream": true, "prompt": ["a", "a", "a", "a", "a"]}', 422),
    ],
    ids=str,
)
def test_what_tgi_refuses_before_the_stream_keeps_its_status(strict, path, data, status):
    response = strict.post_raw(path, data)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"


def test_a_media_type_is_refused_by_its_status(strict):
    response = strict.post_raw("/generate_stream", b'{"inputs": "x"}', content_type="text/plain")
    assert response.status_code == 415


@pytest.mark.parametrize("path", WRONG)
def test_a_failure_amid_the_stream_has_tgi_s_shape_too(strict, path):
    talk = [{"role": "user", "content": "please fail"}]
    body = {"inputs": "please fail", "prompt": "please fail", "messages": talk, "stream": True}
    if path in {CHAT, TEXT}:
        body["temperature"] = 0
    response, events = strict.events(path, body)
    assert response.status_code == 200
    last = events[-2 if path.startswith("/v1/") else -1]
    if path.startswith("/v1/"):
        assert events[-1] == "[DONE]"
        assert last["error"]["message"].startswith("Request failed during generation: ")
        assert last["error"].keys() == {"message", "http_status_code"}
    else:
        assert last["error_type"] == "generation"


def test_while_nobody_can_answer_the_status_says_so(stack_module):
    with stack_module.Stack(tgi_strict=True, worker=False) as loading:
        for path, (body, _) in WRONG.items():
            assert loading.post(path, body).status_code in {422, 503}
        assert loading.post("/generate_stream", {"inputs": "x"}).status_code == 503


def test_overload_stands_in_the_stream_and_has_a_status_elsewhere(stack_module):
    settings = {"max_sequences": 1, "max_waiting_requests": 0, "step_seconds": 0.02}
    endless = {"prompt": "a", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with (
        stack_module.Stack(tgi_strict=True, settings=settings) as full,
        full.connect() as raw,
    ):
        raw.sendall(stack_module.http_request(TEXT, endless))
        assert b"200" in raw.recv(100)
        assert "overloaded" in error_of(full, "/generate_stream", {"inputs": "x"})
        assert "overloaded" in error_of(full, CHAT, {"messages": TALK, "stream": True})
        assert full.post("/generate", {"inputs": "x"}).status_code == 429
