"""The raw stream of events: keep-alives, slow clients, clean-up."""

import asyncio

import pytest
from backplane_server.errors import ClientDisconnectedError
from backplane_server.web.disconnect import until_disconnect
from backplane_server.web.event_stream import DONE, KEEP_ALIVE, EventStream, frame


class Client:
    """An ASGI client that leaves after `leaves_after` seconds and takes writes with a delay."""

    def __init__(self, leaves_after=3600.0, write_delay=0.0):
        self.sent = []
        self._leaves_after = leaves_after
        self._write_delay = write_delay

    async def receive(self):
        await asyncio.sleep(self._leaves_after)
        return {"type": "http.disconnect"}

    async def send(self, message):
        await asyncio.sleep(self._write_delay)
        self.sent.append(message)

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def complete(self):
        return bool(self.sent) and self.sent[-1].get("more_body") is False


class Source:
    """Frames with pauses; remembers how it ended."""

    def __init__(self, *pauses, size=0, error=None):
        self._pauses = list(pauses)
        self._size = size
        self._error = error
        self._timer = None
        self._held = False
        self._number = 0
        self.holds = 0
        self.ended = ""
        self.closed = 0

    def start(self, write, end):
        self._sink, self._end = write, end
        self.resume()

    def hold(self):
        self.holds += 1
        self._held = True
        if self._timer is not None:
            self._timer.cancel()

    def resume(self):
        self._held = False
        if self._pauses:
            self._timer = asyncio.get_running_loop().call_later(self._pauses[0], self._write)
        else:
            self._end(self._error)

    def _write(self):
        del self._pauses[0]
        self._sink(frame(b"%d" % self._number + b" " * self._size))
        self._number += 1
        if not self._held:
            self.resume()

    def last_frames(self, error):
        self.ended = "whole" if error is None else str(error)
        return DONE

    def close(self):
        self.ended = self.ended or "cut"
        self.closed += 1


def stream_of(source, **options):
    fields = {"headers": {"x-a": "b"}, "write_timeout_s": 5.0, **options}
    return EventStream(source, **fields)


async def test_a_whole_stream():
    source, client = Source(0, 0), Client()
    await stream_of(source)({}, client.receive, client.send)
    assert client.body == b"data: 0\n\ndata: 1\n\n" + DONE
    assert client.complete
    headers = dict(client.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream"
    assert headers[b"x-a"] == b"b"
    assert (source.ended, source.closed) == ("whole", 1)


async def test_silence_is_filled_with_comments():
    source, client = Source(0, 0.35), Client()
    await stream_of(source, keep_alive_s=0.1)({}, client.receive, client.send)
    assert client.body == b"data: 0\n\n" + KEEP_ALIVE * 3 + b"data: 1\n\n" + DONE


async def test_a_departed_client_ends_the_source():
    source, client = Source(0, 3600), Client(leaves_after=0.05)
    async with asyncio.timeout(1):
        await stream_of(source)({}, client.receive, client.send)
    assert (source.ended, source.closed) == ("cut", 1)
    assert not client.complete


async def test_a_stalled_client_ends_the_source(caplog):
    source, client = Source(0, 0, 0), Client(write_delay=0.1)
    await stream_of(source, write_timeout_s=0.15)({}, client.receive, client.send)
    assert source.ended == "whole"
    assert not caplog.records
    source, client = Source(0, 3600), Client(write_delay=0.1)
    stream = stream_of(source, write_timeout_s=0.05)
    await stream({}, client.receive, client.send)
    assert (source.ended, source.closed) == ("cut", 1)
    assert not client.complete
    assert "read nothing for 0.05 s" in caplog.text


async def test_a_slow_client_holds_the_source():
    size = 50_000
    source, client = Source(*[0.001] * 20, size=size), Client(write_delay=0.02)
    await stream_of(source)({}, client.receive, client.send)
    assert source.ended == "whole"
    assert source.holds > 1
    assert max(len(message.get("body", b"")) for message in client.sent) < 2 * 65536
    numbers = [event.split()[1] for event in client.body.split(b"\n\n")[:20]]
    assert numbers == [b"%d" % number for number in range(20)]


async def test_an_error_is_told_by_the_last_frames():
    source, client = Source(0, error=KeyError("x")), Client()
    await stream_of(source)({}, client.receive, client.send)
    assert client.body == b"data: 0\n\n" + DONE
    assert client.complete
    assert (source.ended, source.closed) == ("'x'", 1)


async def test_a_cancelled_server_closes_too():
    source, client = Source(0, 3600), Client()
    task = asyncio.create_task(stream_of(source)({}, client.receive, client.send))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (source.ended, source.closed) == ("cut", 1)


async def test_work_ends_with_its_client():
    ended = []

    async def work():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    with pytest.raises(ClientDisconnectedError):
        await until_disconnect({}, Client(leaves_after=0.02).receive, work())
    assert ended == [True]


async def test_work_that_ends_first_is_the_answer():
    async def work():
        return 5

    assert await until_disconnect({}, Client().receive, work()) == 5

    async def failing():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await until_disconnect({}, Client().receive, failing())
