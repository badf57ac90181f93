"""A worker's connection over a real socket pair: written to by two threads, never waited for."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator

from backplane_core.errors import ProtocolError
from backplane_core.messages import Accepted, FromWorker, GetStats, Hello, ToWorker
from backplane_core.version import PROTOCOL
from backplane_core.wire import FrameDecoder, encode
from backplane_core.worker import connection as connection_module
from backplane_core.worker.connection import ServerConnection

FILLER = "x" * 2_000


class Heard:
    """What a connection told its owner."""

    def __init__(self, connection: ServerConnection) -> None:
        self.messages: list[ToWorker] = []
        self.ends: list[Exception | None] = []
        self._connection = connection
        connection.start(self.messages.extend, self._end)

    def _end(self, error: Exception | None) -> None:
        self.ends.append(error)
        self._connection.close()

    async def until(self, condition) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 -- any of several things, by any thread
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[ServerConnection, Heard, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection = ServerConnection(ours, asyncio.get_running_loop())
    heard = Heard(connection)
    with theirs:
        yield connection, heard, theirs
        connection.close()


async def read(theirs: socket.socket, count: int) -> list[FromWorker]:
    """So many messages; fewer where the connection ends."""
    loop, frames = asyncio.get_running_loop(), FrameDecoder(FromWorker)
    messages: list[FromWorker] = []
    async with asyncio.timeout(10):
        while len(messages) < count and (data := await loop.sock_recv(theirs, 1 << 14)):
            messages += frames.feed(data)
    return messages


async def test_nothing_is_lost_or_mixed_up_while_the_server_reads_slowly():
    async with pair() as (connection, _, theirs):

        def talk(who: str) -> None:
            for number in range(500):
                connection.send(Accepted(request_id=f"{who}-{number}-{FILLER}"))

        engine = threading.Thread(target=talk, args=("engine",))
        engine.start()
        talk("io")
        engine.join()
        said = [message.request_id.split("-")[:2] for message in await read(theirs, 1000)]
        for who in ("engine", "io"):
            assert [int(number) for name, number in said if name == who] == list(range(500))


async def test_messages_sent_together_are_one_write():
    async with pair() as (connection, _, theirs):
        messages = [Accepted(request_id=str(number)) for number in range(20)]
        connection.send(*messages)
        assert theirs.recv(1 << 16) == b"".join(map(encode, messages))


async def test_messages_that_came_together_are_told_together():
    async with pair() as (_, heard, theirs):
        hello = Hello(protocol=(PROTOCOL.major, PROTOCOL.minor), server_id="s0")
        asked = [hello, *(GetStats(request_id=f"s0-{number}") for number in range(3))]
        frames = b"".join(map(encode, asked))
        theirs.sendall(frames[:-1])
        await heard.until(lambda: len(heard.messages) == 3)
        theirs.sendall(frames[-1:])
        await heard.until(lambda: len(heard.messages) == 4)
        assert heard.messages == asked


async def test_what_is_queued_is_sent_before_the_end():
    async with pair() as (connection, _, theirs):
        for number in range(800):
            connection.send(Accepted(request_id=f"{number}-{FILLER}"))
        connection.close()
        connection.send(Accepted(request_id="too late"))
        said = [message.request_id.split("-")[0] for message in await read(theirs, 801)]
        assert said == [str(number) for number in range(800)]


async def test_a_server_that_reads_nothing_is_cut(monkeypatch, caplog):
    monkeypatch.setattr(connection_module, "MAX_OUTBOX_BYTES", 1 << 20)
    async with pair() as (connection, heard, theirs):
        connection.server_id = "s0"
        with caplog.at_level(logging.ERROR):
            for _ in range(1000):
                connection.send(Accepted(request_id=FILLER))
        await heard.until(lambda: heard.ends)
        assert heard.ends == [None]
        assert "s0 reads nothing" in caplog.text
        received = 0
        while data := await asyncio.get_running_loop().sock_recv(theirs, 1 << 16):
            received += len(data)
        assert received < 1 << 20


async def test_who_is_cut_gets_no_frame_within_another_and_its_socket_ends(monkeypatch):
    monkeypatch.setattr(connection_module, "MAX_OUTBOX_BYTES", 1 << 20)
    async with pair() as (connection, heard, theirs):
        for _ in range(1000):
            connection.send(Accepted(request_id=FILLER))
        received = bytearray()
        with contextlib.suppress(BlockingIOError):
            while data := theirs.recv(1 << 16):  # read before the I/O thread knows of the cut
                received += data
        connection.send(Accepted(request_id="too late"))
        await heard.until(lambda: heard.ends)
        while data := await asyncio.get_running_loop().sock_recv(theirs, 1 << 16):
            received += data
        whole = encode(Accepted(request_id=FILLER))
        assert bytes(received) == (whole * 1000)[: len(received)]


async def test_a_socket_that_refuses_a_message_ends_the_connection(monkeypatch):
    async with pair() as (connection, heard, _):
        refusing = socket.socket(socket.AF_UNIX)  # of nobody, so no reader has anything to tell
        refusing.setblocking(False)
        with refusing, monkeypatch.context() as patch:
            patch.setattr(connection, "_socket", refusing)
            connection.send(Accepted(request_id="s0-0"))
        await heard.until(lambda: heard.ends)
        assert isinstance(heard.ends[0], OSError)


async def test_a_fault_of_ours_ends_the_connection_instead_of_losing_what_was_said(caplog):
    ours, theirs = socket.socketpair()
    connection = ServerConnection(ours, asyncio.get_running_loop())
    ends: list[Exception | None] = []

    def fail(_: list[ToWorker]) -> None:
        raise RuntimeError("a fault")

    connection.start(fail, ends.append)
    with theirs, caplog.at_level(logging.ERROR):
        theirs.sendall(encode(GetStats(request_id="s0-0")))
        async with asyncio.timeout(10):
            while not ends:  # noqa: ASYNC110 -- told by a callback
                await asyncio.sleep(0.002)
        connection.close()
    assert isinstance(ends[0], RuntimeError)
    assert "could not be handled" in caplog.text


async def test_the_end_is_told_once_whoever_notices_it():
    async with pair() as (connection, heard, theirs):
        theirs.close()
        connection.send(Accepted(request_id="s0-0"))
        connection.send(Accepted(request_id="s0-1"))
        await heard.until(lambda: heard.ends)
        await asyncio.sleep(0.02)
        assert len(heard.ends) == 1


async def test_what_is_not_a_frame_ends_it_with_the_reason():
    async with pair() as (_, heard, theirs):
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await heard.until(lambda: heard.ends)
        assert isinstance(heard.ends[0], ProtocolError)


async def test_a_message_over_the_cap_ends_it_and_not_the_engine(monkeypatch):
    async with pair() as (connection, heard, _):

        def refuse(message: object) -> bytes:
            raise ProtocolError(f"{type(message).__name__} is over the cap")

        monkeypatch.setattr(connection_module, "encode", refuse)
        engine = threading.Thread(target=connection.send, args=(Accepted(request_id="s0-0"),))
        engine.start()
        engine.join()
        await heard.until(lambda: heard.ends)
        assert "over the cap" in str(heard.ends[0])
