"""The id of a request, in its answer and its line of the log; and what is in no log."""

import json
import logging
import re

import pytest
from backplane_core.process import JsonFormatter, TextFormatter
from backplane_server.web.routes import NO_ROUTE, RouteNames

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "the secret prompt"}], "max_tokens": 3}
KEY = "key-0123456789"
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def logged(stack_module):
    with stack_module.Stack(
        api_keys=(KEY,), log_json=True, log_level="debug", worker=False
    ) as running:
        running._client.headers.update(AUTHORIZED)
        running.start_worker(fail_on="please fail")
        yield running


def lines_of(stack, request_id):
    """The log's lines about a request, once there is one."""
    lines = [json.loads(line) for line in stack.log().splitlines()]
    return [line for line in lines if line.get("request_id") == request_id]


def line_of(stack, stack_module, request_id):
    stack_module.wait_until(lambda: lines_of(stack, request_id))
    [line] = lines_of(stack, request_id)
    return line


@pytest.mark.parametrize("given", ["a", "01-ab_CD.e:f@g+h=i/j", "x" * 128])
def test_the_client_s_id_is_kept(stack, given):
    response = stack.get("/info", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "a b", "a\tb", "a,b", "\u00e9".encode(), '"', "{}"]
)
def test_an_id_that_cannot_be_written_is_replaced(stack, given):
    response = stack.get("/info", headers={"x-request-id": given})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_two_ids_are_none(stack):
    raw = b"GET /info HTTP/1.1\r\nhost: localhost\r\nx-request-id: a\r\nx-request-id: b\r\n\r\n"
    with stack.connect() as connection:
        connection.sendall(raw)
        answer = connection.recv(4000)
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}\r\n", answer)


def test_every_answer_has_one(logged):
    answers = [
        logged.get("/health/live"),
        logged.get("/metrics"),
        logged.get("/nope"),
        logged.get("/info", headers={"authorization": "Bearer wrong"}),
        logged.get("/info", headers={"host": "a b"}),
        logged.get("/generate"),
        logged.post("/generate", {"inputs": ""}),
        logged.post_raw("/generate", b"{"),
        logged.post_raw(CHAT, b" " * 2_000_001),
        logged.post("/generate", {"inputs": "x"}),
        logged.post("/generate_stream", {"inputs": "x"}),
        logged.post(CHAT, {**HI, "stream": True}),
        logged._client.head(logged.url + "/info"),
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(answers)
    assert all(
        answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]
        for answer in answers
    )


def test_the_line_tells_what_came_of_it(logged, stack_module):
    asked = {"inputs": "hello", "parameters": {"max_new_tokens": 4}}
    for path, finish in (("/generate", "length"), ("/generate_stream", "length")):
        request_id = logged.post(path, asked).headers["x-request-id"]
        line = line_of(logged, stack_module, request_id)
        assert line["level"] == "INFO"
        assert line["target"].startswith("backplane_server.")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
        assert (line["method"], line["route"], line["status"]) == ("POST", path, 200)
        assert (line["prompt_tokens"], line["generated_tokens"], line["finish"]) == (6, 4, finish)
        assert re.fullmatch(r"server-0-\d+", line["worker_requests"])
        assert 0 < line["duration_s"] < 60
        assert line["message"].startswith(f"POST {path} 200 in ")
        assert "failure" not in line


def test_the_line_of_a_chat_of_several(logged, stack_module):
    body = {"prompt": ["ab", "cde"], "max_tokens": 2, "n": 2, "temperature": 0}
    request_id = logged.post("/v1/completions", body).headers["x-request-id"]
    line = line_of(logged, stack_module, request_id)
    assert (line["prompt_tokens"], line["generated_tokens"]) == (3 + 4, 8)
    assert len(line["worker_requests"].split(",")) == 2


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/generate", {"inputs": ""}, (422, "validation")),
        ("/generate", {"inputs": "please fail"}, (424, "generation")),
        (CHAT, {"messages": 5}, (422, "validation")),
    ],
)
def test_the_line_of_a_failure(logged, stack_module, path, body, expected):
    request_id = logged.post(path, body).headers["x-request-id"]
    line = line_of(logged, stack_module, request_id)
    assert line["route"] == path
    assert (line["status"], line["failure"]) == expected


def test_a_failure_inside_a_stream_is_told_beside_its_status(logged, stack_module):
    body = {"inputs": "please fail", "parameters": {"max_new_tokens": 9}}
    request_id = logged.post("/generate_stream", body).headers["x-request-id"]
    line = line_of(logged, stack_module, request_id)
    assert (line["status"], line["failure"]) == (200, "generation")


def test_a_client_that_leaves_has_a_line_too(logged, stack_module):
    head = stack_module.http_request("/generate_stream", {"inputs": "x" * 1000})
    extra = f"\r\nx-request-id: leaving\r\nauthorization: Bearer {KEY}\r\n".encode()
    with logged.connect(receive_buffer=2048) as raw:
        raw.sendall(head.replace(b"\r\n", extra, 1))
        raw.recv(100)
    assert line_of(logged, stack_module, "leaving")["route"] == "/generate_stream"


def test_probes_and_scrapes_are_quiet(logged, stack_module):
    for path in ("/health/live", "/health/ready", "/health", "/metrics"):
        request_id = logged.get(path).headers["x-request-id"]
        assert line_of(logged, stack_module, request_id)["level"] == "DEBUG"


def test_raw_paths_keys_and_prompts_are_in_no_line(logged, stack_module):
    logged.post(CHAT, HI)
    logged.post(CHAT, {**HI, "stream": True})
    logged.post("/generate", {"inputs": "the secret prompt", "stop": ["the secret prompt"]})
    logged.post_raw("/generate", b'{"inputs": "the secret prompt"')
    logged.get("/nope/secret-path?token=secret-query")
    logged.get("/docs/secret-path")
    logged.get("/info", headers={"authorization": "Bearer wrong-secret-key"})
    last = logged.get("/info", headers={"cookie": "secret-cookie", "referer": "secret-referer"})
    line_of(logged, stack_module, last.headers["x-request-id"])
    log = logged.log()
    assert "secret" not in log
    assert KEY not in log


def test_names_from_clients_begin_no_line_of_their_own(stack_module):
    with stack_module.Stack() as stack:
        evil = '\n2026-01-01 00:00:00 ERROR server-0 forged: "line"\r\x1b[2J\u2028{}'
        stack.post("/generate", {"inputs": "x", evil: 1, "parameters": {"max_new_tokens": 1}})
        stack.post(CHAT, {**HI, "model": evil, evil: {evil: evil}})
        stack.get("/info", headers={"x-request-id": "forged%0aline"})
        stack.get("/" + "forged/%0d%0aERROR")
        last = stack.get("/info").headers["x-request-id"]
        stack_module.wait_until(lambda: last in stack.log())
        log = stack.log()
    for line in re.split("[\n\r\u2028]", log):
        assert (
            re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ server-0 backplane", line)
            or not line
        )
    assert "\x1b" not in log


def record(message, **extra):
    return logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": message, **extra})


def test_a_json_line_is_flat_and_its_own_fields_win():
    fields = {"request_id": "r", "message": "forged", "level": "forged", "number": 5}
    line = JsonFormatter().format(record("a\nb", fields=fields))
    assert "\n" not in line
    document = json.loads(line)
    assert document.pop("timestamp")
    assert document == {
        "level": "INFO",
        "target": "n",
        "message": "a\nb",
        "request_id": "r",
        "number": 5,
    }


@pytest.mark.parametrize(
    ("level", "word"),
    [("DEBUG", "DEBUG"), ("INFO", "INFO"), ("WARNING", "WARN"), ("ERROR", "ERROR")],
)
def test_a_line_names_its_process_and_its_level_in_tgi_s_words(level, word):
    line = json.loads(JsonFormatter("worker-1").format(record("a", levelname=level)))
    assert (line["process"], line["level"]) == ("worker-1", word)


def test_a_text_line_is_one_line():
    text = TextFormatter("%(message)s").format(record("a\nb\r\x1bc\u2028d\te \u00e9"))
    assert text == "a\\nb\\r\\x1bc\\u2028d\te \u00e9"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/info", "/info"),
        ("/info/", "/info"),
        ("/docs/a.css", "/docs/{name}"),
        ("/docs/a/b", NO_ROUTE),
        ("/models/a/b", "/models/{id}"),
        ("/models/", NO_ROUTE),
        ("/INFO", NO_ROUTE),
        ("/info\n", NO_ROUTE),
        ("", "/"),
    ],
)
def test_a_path_s_route(path, route):
    assert RouteNames(["/", "/info", "/docs/{name:str}", "/models/{id:path}"])(path) == route
