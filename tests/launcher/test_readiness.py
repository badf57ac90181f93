import asyncio
import contextlib
import json

import pytest
from backplane_core.errors import SetupError
from backplane_launcher.readiness import wait_until_ready


class Server:
    """Answers what the test says; `asked` holds each request's path and its headers."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        self.asked.append((path, head))
        status, body = self.answers(path, len(self.asked))
        content = json.dumps(body).encode()
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def waited(answers, **options):
    server = Server(answers)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        options = {"api_key": None, "is_up": lambda: True, "limit_s": 30.0, **options}
        await wait_until_ready("127.0.0.1", port, **options)
    return server


async def test_it_returns_once_the_server_is_ready():
    server = await waited(lambda path, count: (200 if count == 3 else 503, {"stage": "load"}))
    assert [path for path, _ in server.asked] == ["/health/ready"] * 3


async def test_a_worker_that_no_server_can_use_is_told_with_the_reason():
    def answers(path, count):
        if path == "/health":
            return 503, {"error": "unhealthy: its tokenizer is torn"}
        return 503, {"error": "not ready", "stage": "failed"}

    with pytest.raises(SetupError, match="cannot use the worker: unhealthy: its tokenizer is torn"):
        await waited(answers)


async def test_a_server_that_is_never_ready_is_given_up():
    with pytest.raises(SetupError, match=r"not ready after 0\.2 s: it does not say why"):
        await waited(lambda path, count: (503, ["what is this"]), limit_s=0.2)


async def test_time_without_a_worker_does_not_count():
    server = await waited(
        lambda path, count: (200 if count == 8 else 503, {"stage": "failed"}),
        is_up=lambda: False,
        limit_s=0.1,
    )
    assert len(server.asked) == 8


async def test_the_key_opens_the_reason_and_is_sent_for_nothing_else():
    server = Server(lambda path, count: (503, {"stage": "failed"}))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(SetupError):
            await wait_until_ready("127.0.0.1", port, api_key="k", is_up=lambda: True)
    asked = {path: "Authorization: Bearer k" in head for path, head in server.asked}
    assert asked == {"/health/ready": False, "/health": True}
