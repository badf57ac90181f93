"""`BlockingChannel`: the wire for a test that plays a server, a launcher or a worker by itself."""

import socket
from typing import Any, Generic

import msgspec

from backplane_core.wire import FrameDecoder, MessageT, encode


class BlockingChannel(Generic[MessageT]):
    """Blocking send and receive over a connected socket, for a test that plays one end."""

    def __init__(self, sock: socket.socket, union: Any) -> None:
        self.socket = sock
        self._frames: FrameDecoder[MessageT] = FrameDecoder(union)
        self._ready: list[MessageT] = []

    def send(self, message: msgspec.Struct) -> None:
        """Send one message, waiting for room in the socket's buffer."""
        self.socket.sendall(encode(message))

    def receive(self, timeout: float | None = None) -> MessageT | None:
        """The next message; None at end of file.

        Raises:
            TimeoutError: nothing complete arrived within `timeout` seconds.
        """
        self.socket.settimeout(timeout)
        while not self._ready:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self._ready.extend(self._frames.feed(data))
        return self._ready.pop(0)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
