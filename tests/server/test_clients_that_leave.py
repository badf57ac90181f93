"""Clients that go away, stop reading, or stay silent."""

import socket
import time

import pytest

LONG = {"max_new_tokens": 3000}
BODIES = {
    "/generate": {"inputs": "abc" * 300, "parameters": LONG},
    "/generate_stream": {"inputs": "abc" * 300, "parameters": LONG},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "abc" * 300}],
        "ignore_eos": True,
    },
    "/v1/completions": {
        "prompt": ["abc" * 300, "def" * 300],
        "stream": True,
        "ignore_eos": True,
    },
}


@pytest.fixture(scope="module")
def slow_stack(stack_module):
    with stack_module.Stack(settings={"step_seconds": 0.02}, write_timeout_s=1.0) as running:
        yield running


def ends_before_done(raw):
    """Read on: whether the connection was reset or closed short of the stream's end."""
    data = b""
    with raw:
        try:
            while more := raw.recv(65536):
                data += more
        except ConnectionResetError:
            return True
    return not data.endswith(b"0\r\n\r\n")


def running(stack):
    return stack.metrics()["tgi_batch_current_size"]


@pytest.mark.parametrize("path", list(BODIES))
def test_a_client_that_leaves_is_cancelled_within_a_second(slow_stack, stack_module, path):
    before = slow_stack.metrics()
    raw = slow_stack.connect()
    raw.sendall(stack_module.http_request(path, BODIES[path]))
    stack_module.wait_until(lambda: running(slow_stack) > 0)
    raw.close()
    left = time.monotonic()
    stack_module.wait_until(lambda: running(slow_stack) == 0, 1.0)
    assert time.monotonic() - left < 1.0
    after = slow_stack.metrics()
    dropped = 'tgi_request_failure{err="dropped"}'
    assert after[dropped] - before[dropped] == 1
    assert after["backplane_cancelled_sequences"] > before["backplane_cancelled_sequences"]


def test_a_stop_string_frees_the_worker_at_once(slow_stack, stack_module):
    parameters = {"max_new_tokens": 3000, "stop": ["abca"]}
    body = {"inputs": "abc" * 300, "parameters": parameters}
    assert slow_stack.post("/generate", body).json()["generated_text"] == "abca"
    stack_module.wait_until(lambda: running(slow_stack) == 0, 1.0)


def test_a_client_that_leaves_before_its_body_is_whole(slow_stack):
    before = slow_stack.metrics()["tgi_request_count"]
    with slow_stack.connect() as raw:
        raw.sendall(
            b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        time.sleep(0.2)
    time.sleep(0.2)
    assert slow_stack.metrics()["tgi_request_count"] == before + 1
    assert slow_stack.get("/health").status_code == 200


def test_a_client_that_stops_reading_is_cut(stack_module):
    # As fast as it can, so that buffers fill; large frames, for the same reason.
    with stack_module.Stack(write_timeout_s=1.0) as stack:
        raw = stack.connect(receive_buffer=4096)
        body = {
            "prompt": ["abc" * 300] * 4,
            "stream": True,
            "ignore_eos": True,
            "logprobs": 5,
            "n": 8,
        }
        raw.sendall(stack_module.http_request("/v1/completions", body))
        stack_module.wait_until(lambda: 'err="dropped"} 1.0' in stack.get("/metrics").text, 15)
        assert running(stack) == 0
        raw.settimeout(10)
        assert ends_before_done(raw)


def test_the_kernel_cuts_a_reader_whose_whole_answer_fits_into_buffers(stack_module):
    with stack_module.Stack(write_timeout_s=1.0) as stack:
        raw = stack.connect(receive_buffer=2048)
        body = {"inputs": "abc" * 300, "parameters": {"max_new_tokens": 2500}}
        raw.sendall(stack_module.http_request("/generate_stream", body))
        stack_module.wait_until(lambda: "tgi_request_success 1.0" in stack.get("/metrics").text)
        time.sleep(4)
        assert ends_before_done(raw)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b"400"),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n", b"400"),
        (
            (
                b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: 100\r\n\r\n{"
            ),
            b"408",
        ),
    ],
)
def test_a_client_that_stops_sending_is_cut(slow_stack, sent, status):
    with slow_stack.connect() as raw:
        raw.sendall(sent)
        begun = time.monotonic()
        assert raw.recv(1000).startswith(b"HTTP/1.1 " + status)
        assert 0.8 < time.monotonic() - begun < 3


def test_a_connection_that_is_kept_is_not_taken_for_a_stalled_one(slow_stack):
    request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    with slow_stack.connect() as raw:
        for _ in range(2):
            raw.sendall(request)
            assert raw.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(1.5)
        raw.sendall(request[:10])
        time.sleep(0.3)
        raw.sendall(request[10:])
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")


def test_half_closed_connections_are_gone_clients(slow_stack, stack_module):
    raw = slow_stack.connect()
    raw.sendall(stack_module.http_request("/generate", BODIES["/generate"]))
    stack_module.wait_until(lambda: running(slow_stack) > 0)
    raw.shutdown(socket.SHUT_WR)
    stack_module.wait_until(lambda: running(slow_stack) == 0, 1.0)
    raw.close()
