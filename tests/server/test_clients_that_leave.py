"""Clients that go away, stop reading, or stay silent."""

import socket
import time
from pathlib import Path

import pytest
from backplane_core.control import Shutdown

STEP_S = 0.02
# A second, counted in the worker's own steps: a busy machine stretches both alike.
STEPS_IN_A_SECOND = 50
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
    with stack_module.Stack(settings={"step_seconds": STEP_S}, write_timeout_s=1.0) as running:
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


def steps(stack):
    return stack.metrics()["backplane_engine_steps"]


def established(raw):
    """Whether the server's end of a connection is open, as the kernel tells without a read."""
    addresses = [f"0100007F:{address[1]:04X}" for address in (raw.getpeername(), raw.getsockname())]
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1:4] == [*addresses, "01"] for line in table)


@pytest.mark.parametrize("path", list(BODIES))
def test_a_client_that_leaves_is_cancelled_within_a_second(slow_stack, stack_module, path):
    before = slow_stack.metrics()
    raw = slow_stack.connect()
    raw.sendall(stack_module.http_request(path, BODIES[path]))
    stack_module.wait_until(lambda: running(slow_stack) > 0)
    left_at = steps(slow_stack)
    raw.close()
    stack_module.wait_until(lambda: running(slow_stack) == 0)
    assert steps(slow_stack) - left_at < STEPS_IN_A_SECOND
    after = slow_stack.metrics()
    dropped = 'tgi_request_failure{err="dropped"}'
    assert after[dropped] - before[dropped] == 1
    assert after["backplane_cancelled_sequences"] > before["backplane_cancelled_sequences"]


def test_a_stop_string_frees_the_worker_at_once(slow_stack, stack_module):
    parameters = {"max_new_tokens": 3000, "stop": ["abca"]}
    body = {"inputs": "abc" * 300, "parameters": parameters}
    before = steps(slow_stack)
    assert slow_stack.post("/generate", body).json()["generated_text"] == "abca"
    stack_module.wait_until(lambda: running(slow_stack) == 0)
    assert steps(slow_stack) - before < STEPS_IN_A_SECOND


def test_a_client_that_leaves_before_its_body_is_whole(slow_stack, stack_module):
    dropped = 'tgi_request_failure{err="dropped"}'
    before = slow_stack.metrics()

    def grown(name):
        return slow_stack.metrics()[name] - before[name]

    with slow_stack.connect() as raw:
        raw.sendall(
            b"POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        stack_module.wait_until(lambda: grown("tgi_request_count") == 1)
    stack_module.wait_until(lambda: grown(dropped) == 1)
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
        stack_module.wait_until(lambda: 'err="dropped"} 1.0' in stack.get("/metrics").text)
        stack_module.wait_until(lambda: running(stack) == 0)
        assert ends_before_done(raw)


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no TCP_USER_TIMEOUT"
)
def test_the_kernel_cuts_a_reader_whose_whole_answer_fits_into_buffers(stack_module):
    with stack_module.Stack(write_timeout_s=1.0) as stack:
        raw = stack.connect(receive_buffer=2048)
        body = {"inputs": "abc" * 300, "parameters": {"max_new_tokens": 2500}}
        raw.sendall(stack_module.http_request("/generate_stream", body))
        stack_module.wait_until(lambda: "tgi_request_success 1.0" in stack.get("/metrics").text)
        assert established(raw)
        stack_module.wait_until(lambda: not established(raw))
        assert ends_before_done(raw)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b"400"),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\n", b"400"),
        (
            (
                b"POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: 100\r\n\r\n{"
            ),
            b"408",
        ),
    ],
)
def test_a_client_that_stops_sending_is_cut(slow_stack, sent, status):
    begun = time.monotonic()
    with slow_stack.connect() as raw:
        raw.sendall(sent)
        assert raw.recv(1000).startswith(b"HTTP/1.1 " + status)
        assert time.monotonic() - begun > 0.9


def test_a_connection_that_is_kept_is_not_taken_for_a_stalled_one(slow_stack):
    request = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with slow_stack.connect() as raw:
        for _ in range(2):
            raw.sendall(request)
            assert raw.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(1.5)  # longer than a request may stall; there is nothing to wait for
        raw.sendall(request[:10])
        time.sleep(0.1)
        raw.sendall(request[10:])
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")


def test_half_closed_connections_are_gone_clients(slow_stack, stack_module):
    raw = slow_stack.connect()
    raw.sendall(stack_module.http_request("/generate", BODIES["/generate"]))
    stack_module.wait_until(lambda: running(slow_stack) > 0)
    left_at = steps(slow_stack)
    raw.shutdown(socket.SHUT_WR)
    stack_module.wait_until(lambda: running(slow_stack) == 0)
    assert steps(slow_stack) - left_at < STEPS_IN_A_SECOND
    raw.close()


UNFINISHED = (
    b"POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: 1000000\r\n\r\n{"
)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_all_before_it_reads_learns_that_it_was_too_much(slow_stack, chunked):
    head = (
        b"POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        b"content-type: application/json\r\n"
    )
    body = b" " * 7_000_000
    if chunked:
        head += b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body)
        body += b"\r\n0\r\n\r\n"
    else:
        head += b"content-length: %d\r\n\r\n" % len(body)
    with slow_stack.connect() as raw:
        raw.sendall(head + body)
        assert raw.recv(100).split()[1] == b"413"


@pytest.mark.parametrize(("expect", "least", "most"), [(b"", 0.9, 5), (b"100-continue", 0, 0.9)])
def test_a_refused_body_that_does_not_come_is_not_awaited_for_long(slow_stack, expect, least, most):
    head = b"POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    if expect:
        head += b"expect: " + expect + b"\r\n"
    with slow_stack.connect() as raw:
        begun = time.monotonic()
        raw.sendall(head + b"content-length: 9000000\r\n\r\n")
        assert raw.recv(100).split()[1] == b"413"
        assert least <= time.monotonic() - begun < most


def test_a_body_that_trickles_is_cut(slow_stack):
    with slow_stack.connect() as raw:
        raw.settimeout(0.1)
        raw.sendall(UNFINISHED)
        begun = time.monotonic()
        answer = b""
        while not answer:
            raw.sendall(b" ")  # never as long as the write timeout without a byte
            try:
                answer = raw.recv(100)
            except TimeoutError:
                assert time.monotonic() - begun < 4
        assert answer.split()[1] == b"408"


def test_a_body_that_comes_slowly_but_fast_enough_is_waited_for(slow_stack, stack_module):
    request = stack_module.http_request(
        "/generate",
        {"inputs": "x", "parameters": {"max_new_tokens": 1, "stop": []}, "a": "b" * 9000},
    )
    with slow_stack.connect() as raw:
        for start in range(0, len(request), 1000):
            raw.sendall(request[start : start + 1000])
            time.sleep(0.15)
        assert raw.recv(100).split()[1] == b"200"


def test_unfinished_bodies_hold_no_shutdown_up(stack_module):
    with stack_module.Stack() as stack, stack.connect() as raw:
        raw.sendall(UNFINISHED)
        stack_module.wait_until(lambda: stack.metrics()["tgi_request_count"] == 1)
        begun = time.monotonic()
        stack.say(Shutdown(grace_s=20))
        assert raw.recv(100).split()[1] == b"503"
        assert stack.server.wait(10) == 0
        assert time.monotonic() - begun < 5
