"""The end of a server: on order, by signal, and with its launcher."""

import signal
import socket
import threading
import time

import httpx
import pytest
from backplane_core.control import Shutdown

BODY = {"inputs": "abc" * 300, "parameters": {"max_new_tokens": 200}}
ENDLESS = {"inputs": "abc" * 300, "parameters": {"max_new_tokens": 2000}}


def start_streams(stack, number):
    results = []

    def one():
        response = stack.post("/generate_stream", BODY)
        results.append((response.status_code, response.text.count("data: ")))

    threads = [threading.Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads, results


def start_one(stack, stack_module):
    """A stream of 45 seconds that has begun."""
    raw = stack.connect()
    raw.sendall(stack_module.http_request("/generate_stream", ENDLESS))
    assert raw.recv(100)
    return raw


def drain(stack_module, begin):
    with stack_module.Stack(settings={"step_seconds": 0.02}) as stack:
        threads, results = start_streams(stack, 8)
        stack_module.wait_until(lambda: stack.metrics()["tgi_batch_current_size"] == 8)
        begin(stack)
        stack_module.wait_until(lambda: stack.get("/health").status_code == 503)
        refused = stack.post("/generate", {"inputs": "x"})
        assert refused.status_code == 503
        assert "shutting down" in refused.json()["error"]
        assert stack.get("/health/live").status_code == 200
        for thread in threads:
            thread.join()
        assert results == [(200, 200)] * 8
        assert stack.server.wait(30) == 0


def test_shutdown_finishes_what_is_in_flight_and_refuses_what_is_new(stack_module):
    drain(stack_module, lambda stack: stack.say(Shutdown(grace_s=20)))


def test_sigterm_does_the_same(stack_module):
    drain(stack_module, lambda stack: stack.server.send_signal(signal.SIGTERM))


def test_what_outlasts_the_grace_is_cut(stack_module):
    with stack_module.Stack(settings={"step_seconds": 0.05}) as stack:
        raw = start_one(stack, stack_module)
        begun = time.monotonic()
        stack.say(Shutdown(grace_s=0.5))
        assert stack.server.wait(30) == 0
        assert time.monotonic() - begun > 0.4
        assert "1 requests were cut short" in stack.log()
        raw.close()


def test_the_launchers_death_is_the_servers(stack_module):
    with stack_module.Stack() as stack:
        stack.control.socket.shutdown(socket.SHUT_RDWR)
        assert stack.server.wait(30) == 4
        assert "the launcher is gone" in stack.log()


def test_an_orphan_does_not_drain(stack_module):
    with stack_module.Stack(settings={"step_seconds": 0.05}) as stack:
        raw = start_one(stack, stack_module)
        stack.server.send_signal(signal.SIGTERM)
        stack_module.wait_until(lambda: "stopping; 1 requests have 90 s" in stack.log())
        stack.control.socket.shutdown(socket.SHUT_RDWR)
        assert stack.server.wait(30) == 4
        raw.close()


def test_an_idle_server_stops_at_once(stack_module):
    with stack_module.Stack() as stack:
        keep_alive = httpx.Client()
        assert keep_alive.get(stack.url + "/health").status_code == 200
        stack.say(Shutdown(grace_s=300))
        assert stack.server.wait(30) == 0
        keep_alive.close()


def test_the_log_of_an_ordered_life_is_short(stack_module):
    with stack_module.Stack() as stack:
        stack.say(Shutdown(grace_s=30))
        assert stack.server.wait(30) == 0
        said = [line.split(" backplane_server.")[1] for line in stack.log().splitlines()]
    assert [line.split(": ", 1)[1] for line in said] == [
        f"listening at {stack.url}",
        "worker worker-0 answers",
        "stopping",
    ]


def test_a_worker_that_ends_in_an_ordered_stop_is_no_warning(stack_module):
    with stack_module.Stack(settings={"step_seconds": 0.05}) as stack:
        raw = start_one(stack, stack_module)
        stack.say(Shutdown(grace_s=300))
        stack_module.wait_until(lambda: "stopping; 1 requests have 300 s" in stack.log())
        stack.kill_worker()
        assert stack.server.wait(30) == 0
        assert "worker worker-0 is gone" in stack.log()
        assert "WARNING" not in stack.log()
        raw.close()


def test_a_listening_socket_can_be_handed_over(stack_module):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    port = listener.getsockname()[1]
    with stack_module.Stack(listen_fd=listener.fileno(), hostname="127.0.0.1") as stack:
        assert stack.url == f"http://127.0.0.1:{port}"
        assert stack.post("/generate", {"inputs": "x"}).status_code == 200
    # The next server of the launcher takes over; nobody was refused in between.
    with stack_module.Stack(listen_fd=listener.fileno(), hostname="127.0.0.1") as stack:
        assert stack.get("/health").status_code == 200
    listener.close()


def test_a_taken_port_is_one_line_and_status_3(stack_module):
    taken = socket.create_server(("127.0.0.1", 0))
    stack = stack_module.Stack(worker=False, port=taken.getsockname()[1])
    with pytest.raises(AssertionError, match="cannot serve at"), stack:
        pass
    assert stack.server.returncode == 3
    taken.close()
