"""A request may take so long and no longer, whoever is slow: the worker, or nobody at all."""

import signal
import time

import httpx
import pytest

SLOW = {"inputs": "x" * 100, "parameters": {"max_new_tokens": 1000}}


@pytest.fixture(scope="module")
def hurried(stack_module):
    with stack_module.Stack(request_timeout_s=1.0, settings={"step_seconds": 0.05}) as stack:
        yield stack


def test_a_whole_answer_that_is_late_is_a_504(hurried):
    begun = time.monotonic()
    response = hurried.post("/generate", SLOW)
    assert response.status_code == 504
    body = response.json()
    assert body["error_type"] == "deadline_exceeded"
    assert "1 s" in body["error"]
    assert 0.9 < time.monotonic() - begun < 20
    chat = {"messages": [{"role": "user", "content": "x" * 100}], "temperature": 0}
    response = hurried.post("/v1/chat/completions", chat)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_a_stream_that_is_late_ends_in_an_event_and_frees_its_place(hurried, stack_module):
    response, events = hurried.events("/generate_stream", SLOW)
    assert response.status_code == 200
    assert 2 <= len(events) <= 22
    assert [event["index"] for event in events[:-1]] == list(range(1, len(events)))
    assert events[-1]["error_type"] == "deadline_exceeded"
    stack_module.wait_until(lambda: hurried.metrics()["tgi_batch_current_size"] == 0)


def test_what_is_done_in_time_is_left_alone(hurried):
    body = {"inputs": "x", "parameters": {"max_new_tokens": 2}}
    assert hurried.post("/generate", body).status_code == 200


def test_a_worker_that_stands_still_does_not_hold_its_clients(stack_module):
    """Neither one whose stream has begun nor one that it never took."""
    with stack_module.Stack(request_timeout_s=1.0, settings={"step_seconds": 0.05}) as stack:
        begun = time.monotonic()
        with httpx.stream("POST", stack.url + "/generate_stream", json=SLOW) as response:
            chunks = response.iter_bytes()
            first = next(chunks)
            stack.workers[-1].send_signal(signal.SIGSTOP)
            events = stack_module.parse_events(first + b"".join(chunks))
        assert events[0]["index"] == 1
        assert events[-1]["error_type"] == "deadline_exceeded"
        response = stack.post("/generate", SLOW)
        assert response.status_code == 504
        assert response.json()["error_type"] == "deadline_exceeded"
        assert time.monotonic() - begun < 20
