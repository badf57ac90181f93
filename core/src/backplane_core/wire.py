"""Framing: a 4-byte big-endian length, then one msgpack-encoded tagged struct.

No pickle, no code, no unbounded read: a frame over the cap or of an unknown type is a
`ProtocolError`, and the connection that sent it is closed.
"""

import asyncio
import struct
from typing import Any, Final, Generic, TypeVar

import msgspec

from backplane_core.errors import ProtocolError

LENGTH: Final = struct.Struct(">I")
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024

MessageT = TypeVar("MessageT")

_encoder = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """One frame, length included.

    Raises:
        ProtocolError: the message is over the cap; nothing was sent.
    """
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(
            f"a {type(message).__name__} of {len(body)} bytes is over "
            f"the {MAX_FRAME_BYTES} byte cap"
        )
    return LENGTH.pack(len(body)) + body


class FrameDecoder(Generic[MessageT]):
    """Turns bytes as they arrive into messages of one union; holds at most one frame."""

    def __init__(self, union: Any, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._decoder: msgspec.msgpack.Decoder[MessageT] = msgspec.msgpack.Decoder(union)
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[MessageT]:
        """The messages completed by `data`.

        Raises:
            ProtocolError: a frame is over the cap, malformed or of an unknown type.
        """
        self._buffer += data
        messages: list[MessageT] = []
        offset = 0
        # A view over the buffer would forbid resizing it, so it is released before the cut.
        with memoryview(self._buffer) as view:
            while (end := self._frame_end(offset)) is not None:
                with view[offset + LENGTH.size : end] as body:
                    messages.append(self._decode(body))
                offset = end
        if offset:
            del self._buffer[:offset]
        return messages

    def _frame_end(self, offset: int) -> int | None:
        if len(self._buffer) - offset < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(self._buffer, offset)
        if size > self._max_bytes:
            raise ProtocolError(f"a frame of {size} bytes is over the {self._max_bytes} byte cap")
        end = offset + LENGTH.size + size
        return end if end <= len(self._buffer) else None

    def _decode(self, body: memoryview) -> MessageT:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ProtocolError(f"a frame of {len(body)} bytes cannot be read: {error}") from error


async def read_messages(
    reader: asyncio.StreamReader, frames: FrameDecoder[MessageT]
) -> list[MessageT] | None:
    """The next message or messages from a stream; None at end of file."""
    while True:
        data = await reader.read(1 << 16)
        if not data:
            return None
        messages = frames.feed(data)
        if messages:
            return messages
