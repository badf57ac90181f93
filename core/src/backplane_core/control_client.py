"""The asyncio side of the launcher's control socket, for servers."""

import asyncio
from collections import deque

import msgspec

from backplane_core.control import Join, ToChild
from backplane_core.errors import UnavailableError
from backplane_core.wire import FrameDecoder, encode, read_messages


class ControlConnection:
    """A child's line to its launcher: an async iterator of what the launcher says.

    Iteration ends when the launcher is gone, which a child takes as the order to stop.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames: FrameDecoder[ToChild] = FrameDecoder(ToChild)
        self._ready: deque[ToChild] = deque()

    @classmethod
    async def connect(cls, control_path: str, join: Join) -> "ControlConnection":
        """Connect and introduce this process.

        Raises:
            UnavailableError: no launcher listens at `control_path`.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(control_path)
        except OSError as error:
            raise UnavailableError(f"no launcher at {control_path}: {error.strerror}") from error
        connection = cls(reader, writer)
        connection.send(join)
        return connection

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message to the launcher."""
        self._writer.write(encode(message))

    def __aiter__(self) -> "ControlConnection":
        return self

    async def __anext__(self) -> ToChild:
        while not self._ready:
            try:
                messages = await read_messages(self._reader, self._frames)
            except OSError:
                messages = None
            if messages is None:
                raise StopAsyncIteration
            self._ready.extend(messages)
        return self._ready.popleft()

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()
