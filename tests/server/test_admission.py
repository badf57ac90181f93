"""What may be on its way to a worker at a time, and that all of the way is in a request's time."""

import asyncio
import contextlib
import json
import signal
import threading
import time

import pytest
from backplane_core.control import ServerLaunch
from backplane_core.errors import DeadlineExceededError, OverloadedError
from backplane_server.services.admission import Admission
from backplane_server.services.deadline import deadline
from backplane_server.templates.renderer import RendererProcess

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
# A template that takes its time for one message and none for others.
SLOW_FOR_LOOP = "{% if messages[0].content == 'loop' %}" + LOOP + "{% endif %}hi"


def admission(**fields):
    return Admission(ServerLaunch(server_id="s", control_path="", model_id="m", **fields))


@pytest.mark.parametrize(
    ("fields", "num_bytes", "most"),
    [
        ({"max_concurrent_requests": 3}, 10, 6),
        ({"max_concurrent_requests": 100, "payload_limit": 50}, 50, 16),
        ({"max_concurrent_requests": 100, "payload_limit": 50}, 25, 32),
    ],
)
def test_requests_and_their_bytes_are_bounded(fields, num_bytes, most):
    door = admission(**fields)
    for _ in range(2):
        for _ in range(most):
            door.begin(num_bytes)
        with pytest.raises(OverloadedError) as caught:
            door.begin(num_bytes)
        assert caught.value.retry_after_s == 1
        for _ in range(most):
            door.end(num_bytes)


async def test_large_bodies_take_turns_and_let_small_ones_pass():
    door, order = admission(), []

    async def read(num_bytes):
        if door.waits_for_turn(num_bytes):
            async with door.turn():
                order.append(num_bytes)
        else:
            order.append(num_bytes)

    large = [asyncio.create_task(read(1_000_000 + number)) for number in range(3)]
    while not order:  # noqa: ASYNC110 -- counted are the loop's turns, not time
        await asyncio.sleep(0)
    await read(10)
    await asyncio.gather(*large)
    assert order == [1_000_000, 10, 1_000_001, 1_000_002]


async def test_a_deadline_is_told_from_other_timeouts():
    with pytest.raises(DeadlineExceededError, match=r"0\.01 s"):
        async with deadline(0.01):
            await asyncio.sleep(30)
    for timeout_s in (30, None):
        with pytest.raises(TimeoutError):
            async with deadline(timeout_s):
                raise TimeoutError


async def test_nobody_waits_for_long_behind_slow_templates():
    renderer = RendererProcess(time_limit_s=1.5, wait_limit_s=0.2)
    await renderer.start()
    slow = asyncio.create_task(renderer.render(LOOP, {}))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(renderer.render("x", {})) for _ in range(3)]
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [type(result) for result in results] == [OverloadedError] * 3
    assert not slow.done()
    assert results[0].retry_after_s == 0.2
    await asyncio.gather(slow, return_exceptions=True)
    assert await renderer.render("x", {}) == "x"
    await renderer.close()


def test_a_slow_template_of_others_costs_no_more_than_the_requests_time(stack_module):
    with stack_module.Stack(chat_template=SLOW_FOR_LOOP, request_timeout_s=1.0) as stack:
        results = []

        def loop():
            body = {"messages": [{"role": "user", "content": "loop"}]}
            results.append(stack.post(CHAT, body).status_code)

        threads = [threading.Thread(target=loop) for _ in range(3)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        stack_module.wait_until(lambda: stack.metrics()["backplane_requests_in_flight"] == 3)
        response = stack.post("/chat_tokenize", HI)
        assert response.status_code == 504
        assert response.json()["error_type"] == "deadline_exceeded"
        for thread in threads:
            thread.join()
        assert time.monotonic() - begun < 20
        assert results == [504] * 3
        # The renderer is still at the first of them, whose client has been told.
        stack_module.wait_until(lambda: stack.post(CHAT, HI).status_code == 200)


def test_beyond_what_may_be_on_its_way_is_a_429_and_only_then(stack_module):
    body = {"messages": [{"role": "user", "content": "loop"}], "user": "x" * 100}
    data = json.dumps(body).encode()
    with stack_module.Stack(
        chat_template=SLOW_FOR_LOOP, request_timeout_s=2.0, payload_limit=len(data)
    ) as stack:
        threads = [threading.Thread(target=stack.post_raw, args=(CHAT, data)) for _ in range(16)]
        for thread in threads:
            thread.start()
        stack_module.wait_until(lambda: stack.metrics()["backplane_requests_in_flight"] == 16)
        for path, asked in ((CHAT, HI), ("/tokenize", {"inputs": "x"})):
            response = stack.post(path, asked)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "1"
        for thread in threads:
            thread.join()
        for _ in range(3):  # what was refused or overdue holds no place
            assert stack.post("/tokenize", {"inputs": "x"}).status_code == 200


def test_what_runs_is_no_longer_on_its_way(stack_module):
    long = {"inputs": "x" * 100, "parameters": {"max_new_tokens": 100}}
    fields = {"settings": {"step_seconds": 0.1}, "payload_limit": 200}
    with stack_module.Stack(**fields) as stack, contextlib.ExitStack() as open_streams:
        for _ in range(30):  # of more bytes than may be on their way together
            raw = open_streams.enter_context(stack.connect())
            raw.sendall(stack_module.http_request("/generate_stream", long))
            assert b" 200 " in raw.recv(100)
        assert stack.metrics()["backplane_requests_in_flight"] == 30
        assert stack.post("/tokenize", {"inputs": "x"}).status_code == 200


@pytest.mark.parametrize("path", ["/tokenize", "/chat_tokenize"])
def test_a_worker_that_stands_still_does_not_hold_those_who_tokenize(stack_module, path):
    with stack_module.Stack(request_timeout_s=1.0) as stack:
        stack.workers[-1].send_signal(signal.SIGSTOP)
        response = stack.post(path, {"inputs": "x"} if path == "/tokenize" else HI)
        stack.workers[-1].send_signal(signal.SIGCONT)
        assert response.status_code == 504
        assert response.json()["error_type"] == "deadline_exceeded"


def test_a_body_that_trickles_in_is_in_the_requests_time(stack_module):
    with stack_module.Stack(request_timeout_s=1.0) as stack:
        begun = time.monotonic()
        raw = stack.connect()
        request = stack_module.http_request("/generate", {"inputs": "x"})
        raw.sendall(request[:-1])
        assert raw.recv(1000).startswith(b"HTTP/1.1 504")
        assert time.monotonic() - begun < 20
        raw.close()
