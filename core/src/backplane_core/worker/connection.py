"""One server's connection, seen from the worker: framing in, a bounded outbox out."""

import asyncio
import logging
from typing import Final

import msgspec

from backplane_core.messages import ToWorker
from backplane_core.wire import FrameDecoder, encode, read_messages

_log = logging.getLogger(__name__)

MAX_OUTBOX_BYTES: Final = 64 * 1024 * 1024


class ServerConnection:
    """Framed messages to and from one server. Used on the I/O thread alone.

    A server that stops reading is cut once `MAX_OUTBOX_BYTES` wait for it: a hung server
    must not take the worker's memory.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames: FrameDecoder[ToWorker] = FrameDecoder(ToWorker)
        self.server_id = ""

    async def receive(self) -> list[ToWorker] | None:
        """The next messages; None at end of file."""
        return await read_messages(self._reader, self._frames)

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message; cuts the connection if too much is waiting."""
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > MAX_OUTBOX_BYTES:
            _log.error(
                "%s reads nothing and %d bytes wait for it: cutting it off",
                self.server_id,
                transport.get_write_buffer_size(),
            )
            transport.abort()
            return
        self._writer.write(encode(message))

    def close(self) -> None:
        """Close after what is queued has been sent."""
        self._writer.close()
