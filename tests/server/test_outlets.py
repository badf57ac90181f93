"""Streams written straight to the transport: framing, slow readers, order, and the end."""

import asyncio
import json
import time

import pytest
from backplane_server.web.client_link import ClientLink
from backplane_server.web.event_stream import EventStream

TEXT = "abc" * 300


@pytest.fixture(scope="module")
def fast(stack_module):
    with stack_module.Stack(write_timeout_s=5.0) as running:
        yield running


def completion(stack_module, version="1.1", **fields):
    greedy = {"temperature": 0, "ignore_eos": True, "max_tokens": 900}
    body = {"prompt": TEXT, "stream": True, **greedy, **fields}
    request = stack_module.http_request("/v1/completions", body)
    return request.replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1)


def read_to_end(raw):
    data = b""
    while more := raw.recv(65536):
        data += more
    return data


def dechunked(data):
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        if not int(size, 16):
            return body, rest.removeprefix(b"\r\n")
        body, data = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    raise AssertionError("the last chunk is missing")


def text_of(stack_module, body):
    events = stack_module.parse_events(body)
    assert events.pop() == "[DONE]"
    return "".join(event["choices"][0]["text"] for event in events)


def test_a_client_of_http_1_0_gets_no_chunks(fast, stack_module):
    with fast.connect() as raw:
        raw.sendall(completion(stack_module, version="1.0"))
        head, _, body = read_to_end(raw).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert text_of(stack_module, body) == TEXT


def test_streams_of_one_connection_follow_one_another(fast, stack_module):
    with fast.connect() as raw:
        raw.sendall(completion(stack_module) + completion(stack_module, prompt="xyz"))
        data = b""
        while data.count(b"0\r\n\r\n") < 2:
            data += raw.recv(65536)
    _, _, first = data.partition(b"\r\n\r\n")
    body, second = dechunked(first)
    assert text_of(stack_module, body) == TEXT
    body, rest = dechunked(second.partition(b"\r\n\r\n")[2])
    assert text_of(stack_module, body) == "xyz" * 300
    assert rest == b""


def test_a_reader_that_pauses_loses_nothing(fast, stack_module):
    with fast.connect(receive_buffer=4096) as raw:
        raw.sendall(completion(stack_module, logprobs=5, n=8))
        stack_module.wait_until(lambda: fast.metrics()["tgi_batch_current_size"] == 0)
        time.sleep(0.2)  # the worker is done, the buffers are full, and still nobody reads
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += raw.recv(65536)
    body, _ = dechunked(data.partition(b"\r\n\r\n")[2])
    events = stack_module.parse_events(body)
    texts = dict.fromkeys(range(8), "")
    for event in events[:-1]:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == dict.fromkeys(range(8), TEXT)


def test_every_token_is_an_event_of_its_own_chunk(fast, stack_module):
    with fast.connect() as raw:
        raw.sendall(completion(stack_module, max_tokens=20))
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += raw.recv(65536)
    body = data.partition(b"\r\n\r\n")[2]
    assert body.count(b"\r\ndata: {") + body.startswith(b"7") >= 20
    first = body.partition(b"\r\n")[2]
    assert json.loads(first[6 : first.index(b"\n\n")])["choices"][0]["text"] == "a"


# ── the outlet alone ─────────────────────────────────────────────────────────────────────────


class Transport:
    def __init__(self):
        self.written = []
        self.aborted = False

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


class Connection:
    def __init__(self):
        self.transport = Transport()
        self.watcher = None


class Flow:
    def __init__(self):
        self.write_paused = False
        self.read_paused = False

    def resume_reading(self):
        self.read_paused = False


class Cycle:
    def __init__(self):
        self.disconnected = False
        self.chunked_encoding = None
        self.flow = Flow()


class Source:
    """Writes when the test says so."""

    def __init__(self):
        self.told = []

    def start(self, write, end):
        self.told.append("start")
        self.write, self.end = write, end

    def hold(self):
        self.told.append("hold")

    def resume(self):
        self.told.append("resume")

    def last_frames(self, error):
        return b"last"

    def close(self):
        self.told.append("close")


class Linked:
    """A stream on a connection whose transport the test plays."""

    def __init__(self, **options):
        self.connection, self.cycle, self.source = Connection(), Cycle(), Source()
        link = ClientLink(self.connection, self.cycle, speaks_chunks=True)
        scope = {"extensions": {"backplane.client_link": link}}
        self.sent = []

        async def send(message):
            self.sent.append(message)

        async def receive():
            raise AssertionError("the link tells of the client")

        fields = {"headers": {}, "write_timeout_s": 0.1, **options}
        self.task = asyncio.create_task(EventStream(self.source, **fields)(scope, receive, send))

    @property
    def written(self):
        return b"".join(self.connection.transport.written)


async def test_frames_are_written_within_the_call():
    linked = Linked()
    await asyncio.sleep(0)
    linked.source.write(b"data: 0\n\n")
    assert linked.written == b"9\r\ndata: 0\n\n\r\n"
    linked.source.end(None)
    await linked.task
    assert linked.written.endswith(b"4\r\nlast\r\n")
    assert linked.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert linked.connection.watcher is None
    assert linked.source.told == ["start", "close"]


async def test_a_full_transport_holds_the_source_and_silence_is_not_filled():
    linked = Linked(keep_alive_s=0.01, write_timeout_s=5.0)
    await asyncio.sleep(0)
    linked.connection.watcher.pause()
    await asyncio.sleep(0.05)
    assert linked.written == b""
    linked.connection.watcher.resume()
    assert linked.source.told == ["start", "hold", "resume"]
    await asyncio.sleep(0.05)
    assert linked.written.startswith(b"3\r\n:\n\n\r\n")
    linked.task.cancel()
    await asyncio.wait([linked.task])


async def test_a_transport_that_stays_full_is_cut(caplog):
    linked = Linked()
    await asyncio.sleep(0)
    linked.connection.watcher.pause()
    await asyncio.sleep(0.2)
    assert linked.connection.transport.aborted
    assert "read nothing for 0.1 s" in caplog.text
    linked.connection.watcher.lost()
    await linked.task
    assert linked.source.told[-1] == "close"
    assert linked.sent[-1]["type"] == "http.response.start", "nothing says that it is whole"


async def test_a_client_that_is_gone_before_the_first_token():
    linked = Linked()
    linked.cycle.disconnected = True
    await asyncio.wait_for(linked.task, 1)
    assert linked.source.told[-1] == "close"
    assert "start" not in linked.source.told


async def test_a_client_that_leaves_as_the_stream_ends_is_sent_no_end():
    linked = Linked()
    await asyncio.sleep(0)
    linked.source.end(None)
    linked.connection.transport.aborted = True
    linked.connection.watcher.lost()
    await linked.task
    assert linked.written == b""
    assert linked.sent[-1]["type"] == "http.response.start"
    assert linked.source.told == ["start", "close"]


async def test_a_transport_that_was_full_before_the_stream_holds_it_too(caplog):
    linked = Linked()
    linked.cycle.flow.write_paused = True
    await asyncio.sleep(0.2)
    assert linked.source.told == ["hold", "start", "hold"]
    assert linked.connection.transport.aborted
    assert "read nothing for 0.1 s" in caplog.text
    linked.connection.watcher.lost()
    await linked.task


async def test_who_is_to_be_told_of_the_client_has_its_connection_read():
    linked = Linked()
    linked.cycle.flow.read_paused = True  # by a large body
    await asyncio.sleep(0)
    assert not linked.cycle.flow.read_paused
    linked.source.end(None)
    await linked.task
