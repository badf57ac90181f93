"""Workers that load, are full, fail, break and die, as clients see them."""

import json
import threading

import pytest
from backplane_core.control import Progress, WorkerDown
from backplane_core.errors import ErrorInfo
from backplane_server.web.errors import map_error

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hello"}]}
LONG = {"max_new_tokens": 500}


def read_stream(raw, needle):
    """Read until `needle` is there, or the end."""
    data = b""
    while needle not in data and (more := raw.recv(65536)):
        data += more
    return data


def test_503_with_progress_until_a_worker_is_up(stack_module):
    with stack_module.Stack(worker=False) as stack:
        assert stack.get("/health/live").status_code == 200
        response = stack.get("/health")
        assert response.status_code == 503
        assert response.json()["progress"]["detail"] == "waiting for a worker"
        stack.say(Progress(worker_id="worker-0", stage="load", fraction=0.4, detail="weights"))
        stack_module.wait_until(lambda: stack.get("/health").json()["progress"]["fraction"] == 0.4)
        for path in ("/generate", "/generate_stream", "/"):
            response = stack.post(path, {"inputs": "x", "stream": True})
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            body = response.json()
            assert body["error_type"] == "unavailable"
            assert "load 40%: weights" in body["error"]
            progress = body["progress"]
            assert (progress["stage"], progress["fraction"]) == ("load", 0.4)
            assert (progress["detail"], progress["ready"]) == ("weights", False)
        error = stack.post(CHAT, {**HI, "stream": True})
        assert error.status_code == 503
        assert error.json()["error"]["progress"]["stage"] == "load"
        ready = stack.get("/health/ready")
        assert ready.json()["stage"] == "load"
        assert "weights" not in ready.text, "details are for those who have a key"
        assert stack.get("/v1/models").status_code == 200
        assert stack.get("/info").status_code == 503
        stack.start_worker()
        assert stack.post("/generate", {"inputs": "x"}).status_code == 200
        assert stack.get("/health").status_code == 200
        assert stack.get("/health").content == b""


def test_worker_death_ends_streams_with_a_typed_event_and_service_returns(stack_module):
    with stack_module.Stack(settings={"step_seconds": 0.02}) as stack:
        raws = {path: stack.connect() for path in ("/generate_stream", CHAT, "/v1/completions")}
        bodies = {
            "/generate_stream": {"inputs": "abc" * 400, "parameters": LONG},
            CHAT: {"messages": [{"role": "user", "content": "abc" * 400}], "stream": True},
            "/v1/completions": {"prompt": "abc" * 400, "stream": True},
        }
        for path, raw in raws.items():
            raw.sendall(stack_module.http_request(path, bodies[path]))
            assert b"data: " in read_stream(raw, b"data: ")
        stack.kill_worker("killed by the test")
        for path, raw in raws.items():
            data = read_stream(raw, b"\r\n0\r\n\r\n")
            last = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
            if path == "/generate_stream":
                error = json.loads(last[-1][6:])
                assert error["error_type"] == "generation"
                assert error["error"].startswith("Request failed during generation: ")
            else:
                assert last[-1] == b"data: [DONE]"
                error = json.loads(last[-2][6:])["error"]
                assert (error["code"], error["http_status_code"]) == ("worker_died", 424)
            raw.close()
        stack_module.wait_until(lambda: stack.get("/health").status_code == 503)
        assert "killed by the test" in stack.post("/generate", {"inputs": "x"}).json()["error"]
        stack.start_worker()
        assert stack.post("/generate", {"inputs": "x"}).status_code == 200


def test_worker_death_fails_a_whole_answer_with_424(stack_module):
    with stack_module.Stack(settings={"crash_on": "BOOM", "step_seconds": 0.01}) as stack:
        response = stack.post("/generate", {"inputs": "BOOM", "parameters": LONG})
        assert response.status_code == 424
        assert response.json()["error_type"] == "generation"


def test_a_typed_failure_of_one_request_is_told(stack_module):
    with stack_module.Stack(settings={"fail_on": "boom"}) as stack:
        bodies = {
            "/generate": {"inputs": "boom", "parameters": {"max_new_tokens": 5}},
            "/generate_stream": {"inputs": "boom"},
            CHAT: {"messages": [{"role": "user", "content": "boom"}]},
            "/v1/completions": {"prompt": "boom"},
        }
        for path, body in bodies.items():
            response = stack.post(path, body)
            assert response.status_code == (200 if path == "/generate_stream" else 424)
            failed = [line for line in response.text.splitlines() if "error" in line]
            assert "told to fail" in failed[-1]


@pytest.mark.parametrize("dialect", ["native", "openai"])
@pytest.mark.parametrize("error", [OSError("/secret/path 0x7f"), MemoryError("/secret/path")])
def test_what_an_engine_raises_stays_in_the_log(error, dialect, caplog):
    arrived = ErrorInfo.of(error).restore()
    told = map_error(arrived)
    assert told.status == 424
    body = told.body(dialect).decode()
    assert "secret" not in body
    assert "internal error; the server's log has it" in body
    assert "/secret/path" in caplog.text


def test_a_full_queue_is_429_with_retry_after_before_the_first_byte(stack_module):
    with stack_module.Stack(max_concurrent_requests=2, settings={"step_seconds": 0.1}) as stack:
        raws = [stack.connect() for _ in range(2)]
        for raw in raws:
            body = {"inputs": "abc" * 400, "parameters": LONG}
            raw.sendall(stack_module.http_request("/generate_stream", body))
            assert b"data: " in read_stream(raw, b"data: ")
        for path, body in {
            "/generate": {"inputs": "x"},
            "/generate_stream": {"inputs": "x"},
            CHAT: {**HI, "stream": True},
            "/v1/completions": {"prompt": "x", "stream": True},
        }.items():
            response = stack.post(path, body)
            assert response.status_code == 429, path
            assert int(response.headers["retry-after"]) >= 1
            assert "overloaded" in response.text
        for raw in raws:
            raw.close()
        stack_module.wait_until(lambda: stack.post("/generate", {"inputs": "x"}).status_code == 200)


def test_one_refused_prompt_cancels_the_others(stack_module):
    with stack_module.Stack(max_concurrent_requests=2, settings={"step_seconds": 0.05}) as stack:
        body = {"prompt": ["abc" * 100] * 4, "temperature": 0, "ignore_eos": True}
        assert stack.post("/v1/completions", body).status_code == 429
        stack_module.wait_until(lambda: stack.metrics()["tgi_batch_current_size"] == 0)


def test_two_workers_share_the_load_and_one_may_go(stack_module):
    with stack_module.Stack(settings={"step_seconds": 0.05}) as stack:
        stack.start_worker("worker-1")
        stack_module.wait_until(lambda: stack.metrics()["backplane_workers_ready"] == 2)
        body = {"inputs": "abc" * 100, "parameters": {"max_new_tokens": 100}}
        statuses = []
        threads = [
            threading.Thread(
                target=lambda: statuses.append(stack.post("/generate", body).status_code)
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        stack_module.wait_until(lambda: stack.metrics()["tgi_batch_current_size"] == 4)
        stack.workers[1].kill()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 200, 424, 424]
        stack.say(WorkerDown(worker_id="worker-1", reason="killed"))
        assert stack.get("/health").status_code == 200
        assert stack.post("/generate", {"inputs": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("flag", "content", "told"),
    [
        ("chat_template", None, "cannot be read: No such file"),
        ("chat_template", b"\x7fELF\xff\x00", "is not text: it is not UTF-8 from byte 4 on"),
        ("tokenizer_config_path", b"\xff", "is not text"),
        ("tokenizer_config_path", b"{", "holds no `chat_template` that can be read"),
        (
            "tokenizer_config_path",
            b'{"chat_template": 5}',
            "holds no `chat_template` that can be read",
        ),
        (
            "tokenizer_config_path",
            b'{"chat_template":' + b"[" * 100_000,
            "holds no `chat_template` that can be read",
        ),
    ],
)
def test_a_template_file_that_cannot_be_used_is_told(stack_module, tmp_path, flag, content, told):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with stack_module.Stack(worker=False, **{flag: str(path)}) as stack:
        stack.start_worker(usable=False)
        stack_module.wait_until(
            lambda: stack.get("/health").json()["progress"]["stage"] == "failed"
        )
        detail = stack.get("/health").json()["progress"]["detail"]
        assert told in detail
        assert str(path) in detail
        assert "(" in detail, "the remedy"
        assert stack.log().count(told) == 1
        assert "Traceback" not in stack.log()


def test_a_broken_engine_is_a_typed_error(stack_module):
    with stack_module.Stack(settings={"raise_on": "BOOM"}) as stack:
        response = stack.post("/generate", {"inputs": "BOOM", "parameters": LONG})
        assert response.status_code == 424
        assert "BOOM" not in response.text
