"""The HTTP server in this process, with applications that the test writes."""

import asyncio
import contextlib
import gc

import pytest
from backplane_server.web.body import arrived_body, read_body
from backplane_server.web.client_link import ClientLink
from backplane_server.web.disconnect import until_disconnect
from backplane_server.web.event_stream import EventStream
from backplane_server.web.http_server import HttpServer, open_listener
from backplane_server.web.request_record import RequestRecord, begin_record
from backplane_server.web.responses import Answer


@contextlib.asynccontextmanager
async def serving(app, stall_timeout_s=5.0):
    listener = open_listener("127.0.0.1", 0, None, write_timeout_s=5.0)
    server = HttpServer(app, listener, stall_timeout_s=stall_timeout_s)
    task = asyncio.create_task(server.run_until_stopped())
    await server.listening.wait()
    try:
        yield listener.getsockname()[1]
    finally:
        server.stop()
        await task


def post(path, body=b"{}"):
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Source:
    """Two frames; the end of the second path's stream never comes."""

    def __init__(self, ends):
        self._ends = ends

    def start(self, write, end):
        write(b"data: 0\n\n")
        if self._ends:
            end(None)

    def hold(self):
        pass

    def resume(self):
        pass

    def last_frames(self, error):
        return b"data: 1\n\n"

    def close(self):
        pass


async def answers(scope, receive, send):
    """`/whole`, `/stream`, and `/endless`, which the client has to leave."""
    begin_record(scope, RequestRecord("id", "POST", scope["path"]))
    assert arrived_body(scope, 100) == b"{}"

    async def make():
        if scope["path"] == "/whole":
            return Answer(b"{}")
        return EventStream(Source(scope["path"] == "/stream"), headers={}, write_timeout_s=5.0)

    await (await until_disconnect(scope, receive, make()))(scope, receive, send)


def num_left():
    kinds = (ClientLink, EventStream, RequestRecord)
    return sum(isinstance(each, kinds) for each in gc.get_objects())


@pytest.mark.parametrize("path", ["/whole", "/stream", "/endless"])
async def test_a_request_that_is_over_is_not_left_to_the_garbage_collector(path):
    gc.collect()
    before = num_left()
    gc.disable()
    try:
        async with serving(answers) as port:
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(post(path))
                end = {"/whole": b"{}", "/stream": b"0\r\n\r\n", "/endless": b"data: 0"}[path]
                await reader.readuntil(end)
                writer.close()
                await writer.wait_closed()
        await asyncio.sleep(0.05)
        assert num_left() == before
    finally:
        gc.enable()


async def test_a_client_that_leaves_after_a_large_body_is_noticed():
    """uvicorn stops reading when so much waits, and with that sees nobody leave."""
    left = asyncio.Event()
    begun = asyncio.Event()
    size = 400_000

    async def app(scope, receive, send):
        if (body := arrived_body(scope, size)) is None:
            body = await read_body(scope, receive, size, stall_timeout_s=5.0)
        assert len(body) == size
        begun.set()
        try:
            await until_disconnect(scope, receive, asyncio.sleep(3600))
        finally:
            left.set()

    async with serving(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/", b" " * size))
        async with asyncio.timeout(5):
            await begun.wait()
            writer.close()
            await left.wait()


async def test_what_follows_a_request_and_is_none_is_not_told_as_its_answer():
    async def app(scope, receive, send):
        await asyncio.sleep(0.1)
        await Answer(b"{}")(scope, receive, send)

    async with serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/"))
        await asyncio.sleep(0.05)
        writer.write(b"no request\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nno length")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_requests_that_wait_on_one_connection_are_bounded():
    num_asked = 0

    async def app(scope, receive, send):
        nonlocal num_asked
        num_asked += 1
        await asyncio.sleep(0.1)
        await Answer(b"{}")(scope, receive, send)

    async with serving(app) as port, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/") * 500)
        assert await reader.read() == b""
        assert num_asked == 1
        writer.close()


async def test_the_rest_of_a_body_that_was_answered_is_not_awaited_for_ever():
    async with serving(Answer(b"{}"), stall_timeout_s=0.3) as port, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = post("/", b" " * 100)
        for part in (request[:-50], request[-50:] + request[:-50]):
            writer.write(part)  # the second time, the rest of the first comes in time
            await reader.readuntil(b"{}")
        for _ in range(3):
            await asyncio.sleep(0.05)
            writer.write(b" ")
        assert await reader.read() == b""
        writer.close()
