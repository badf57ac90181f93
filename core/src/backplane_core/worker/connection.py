"""One server's connection, seen from the worker: framing in, a bounded outbox out.

The socket is written to by whoever has something to say, the engine thread too: a step's tokens
then need no other thread to wake up. Nobody ever waits for it.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from backplane_core.errors import ProtocolError
from backplane_core.messages import ToWorker
from backplane_core.wire import FrameDecoder, encode

_log = logging.getLogger(__name__)

MAX_OUTBOX_BYTES: Final = 64 * 1024 * 1024
_READ_BYTES: Final = 1 << 16  # a larger buffer would be mapped and unmapped for every read


class ServerConnection:
    """Framed messages to and from one server. All but `send` is for the I/O thread alone.

    A server that stops reading is cut once `MAX_OUTBOX_BYTES` wait for it: a hung server
    must not take the worker's memory.
    """

    def __init__(self, peer: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        peer.setblocking(False)
        self._socket = peer
        self._loop = loop
        self._frames: FrameDecoder[ToWorker] = FrameDecoder(ToWorker)
        self._lock = threading.Lock()  # of what follows, and of writing to the socket
        self._outbox = bytearray()
        self._closing = False
        self._on_end: Callable[[Exception | None], None] = _ignore
        self.server_id = ""

    def start(
        self,
        on_messages: Callable[[list[ToWorker]], None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        """Read from now on. `on_end` is called once, with what broke the connection, if any.

        `on_messages` gets at once what came at once.
        """
        self._on_end = on_end
        self._loop.add_reader(self._socket, self._read, on_messages)

    def send(self, *messages: msgspec.Struct) -> None:
        """Send messages in one write, or queue them. Any thread.

        Cuts the connection if too much is waiting.
        """
        try:
            data = b"".join(map(encode, messages))
        except ProtocolError as error:
            self._loop.call_soon_threadsafe(self._end, error)
            return
        with self._lock:
            if self._closing:
                return
            if self._outbox:
                self._outbox += data
                if len(self._outbox) <= MAX_OUTBOX_BYTES:
                    return
                _log.error(
                    "%s reads nothing and %d bytes wait for it: cutting it off",
                    self.server_id,
                    len(self._outbox),
                )
                self._outbox.clear()
                self._closing = True  # what follows would stand within the frame that was cut
                self._loop.call_soon_threadsafe(self._end, None)
                return
            num_sent = self._write(data)
            if num_sent < len(data):
                self._outbox += memoryview(data)[num_sent:]
                self._loop.call_soon_threadsafe(self._await_room)

    def close(self) -> None:
        """Close after what is queued has been sent."""
        with self._lock:
            self._closing = True
            if self._socket.fileno() < 0:
                return
            self._loop.remove_reader(self._socket)
            if not self._outbox:
                self._shut()

    def _read(self, on_messages: Callable[[list[ToWorker]], None]) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if not data:
            self._end(None)
            return
        try:
            on_messages(self._frames.feed(data))
        except ProtocolError as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 -- logged whole
            # Requests among these would never be answered; so the server learns of it.
            _log.exception("what %s said could not be handled", self.server_id or "?")
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        on_end, self._on_end = self._on_end, _ignore
        on_end(error)

    def _write(self, data: bytes | bytearray) -> int:
        """Write what the socket takes now; a broken one takes all."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except ConnectionError:
            return len(data)  # its reader will tell
        except OSError as error:
            self._loop.call_soon_threadsafe(self._end, error)
            return len(data)

    def _await_room(self) -> None:
        with self._lock:
            if self._outbox and self._socket.fileno() >= 0:
                self._loop.add_writer(self._socket, self._flush)

    def _flush(self) -> None:
        with self._lock:
            del self._outbox[: self._write(self._outbox)]
            if not self._outbox:
                self._loop.remove_writer(self._socket)
                if self._closing:
                    self._shut()

    def _shut(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()


def _ignore(error: Exception | None) -> None:
    """Said once already."""
    del error
