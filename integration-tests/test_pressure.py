"""Departed clients, full queues, stalled readers: on the real engine."""

import concurrent.futures
import json
import socket
import time

import httpx
import pytest
from deployment import deployed, wait_until

LONG = {"inputs": "Once", "parameters": {"max_new_tokens": 1500, "ignore_eos": True}}


@pytest.fixture(scope="module")
def narrow():
    """Four requests at most, and none of them ends by itself soon."""
    with deployed("--max-concurrent-requests", "4") as deployment:
        yield deployment


def endless(**extra) -> dict:
    return {"prompt": "Once upon a time", "max_tokens": 1900, "ignore_eos": True, **extra}


def test_a_departed_client_frees_its_blocks(narrow):
    assert narrow.metric("tgi_batch_current_max_tokens") == 0
    with httpx.stream("POST", f"{narrow.url}/v1/completions", json=endless(stream=True)) as reply:
        lines = reply.iter_lines()
        for _ in range(5):
            next(lines)
        wait_until(
            lambda: narrow.metric("tgi_batch_current_max_tokens") > 0, 3, "tokens are in use"
        )
    took = wait_until(
        lambda: narrow.metric("tgi_batch_current_max_tokens") == 0, 2, "blocks are free"
    )
    assert took < 2


def test_a_client_that_leaves_before_the_whole_answer_is_cancelled_too(narrow):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{narrow.url}/v1/completions", json=endless(), timeout=0.5)
    wait_until(lambda: narrow.metric("tgi_batch_current_max_tokens") == 0, 2, "blocks are free")


def test_a_full_queue_answers_429_with_retry_after_before_the_first_byte(narrow):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        stop = False

        def hold() -> int:
            with httpx.stream(
                "POST", f"{narrow.url}/v1/completions", json=endless(stream=True), timeout=60
            ) as reply:
                for _ in reply.iter_lines():
                    if stop:
                        break
                return reply.status_code

        held = [pool.submit(hold) for _ in range(4)]
        wait_until(lambda: narrow.metric("tgi_batch_current_size") == 4, 10, "four are running")
        for path, body in [
            ("/generate", LONG),
            ("/generate_stream", LONG),
            ("/v1/completions", endless(stream=True)),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ]:
            refused = httpx.post(narrow.url + path, json=body, timeout=10)
            assert refused.status_code == 429, (path, refused.text)
            assert int(refused.headers["retry-after"]) >= 1
            assert "error" in refused.json()
        stop = True
        assert [future.result(timeout=60) for future in held] == [200] * 4
    assert httpx.post(f"{narrow.url}/generate", json={"inputs": "x"}, timeout=30).is_success


def test_a_reader_that_stalls_is_cut_and_holds_nobody_up():
    with deployed("--write-timeout", "1") as deployment:
        body = json.dumps(endless(stream=True, logprobs=5)).encode()
        host, port = deployment.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            started = time.monotonic()
            answer = httpx.post(
                f"{deployment.url}/generate",
                json={"inputs": "Hello", "parameters": {"max_new_tokens": 8}},
                timeout=20,
            )
            assert answer.is_success
            assert time.monotonic() - started < 10
            wait_until(
                lambda: deployment.metric("tgi_batch_current_max_tokens") == 0, 40, "it is cut"
            )
