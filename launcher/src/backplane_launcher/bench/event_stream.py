"""Server-sent events out of pieces of bytes, however these are cut. Knows nothing of HTTP."""

from typing import Final

_DATA: Final = b"data:"
_FIELD: Final = b"data: "
_END: Final = b"\n\n"


class EventSplitter:
    """Give it the pieces as they come; each call returns the data of the events that are whole."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that ends in this piece; comments and other fields are none."""
        # One event of one line, whole: what nearly every piece is.
        if (
            not self._rest
            and piece.startswith(_FIELD)
            and piece.find(b"\n") == len(piece) - 2
            and piece.endswith(_END)
            and b"\r" not in piece
        ):
            return [piece[6:-2]]
        text = self._rest + piece
        held = b""
        if b"\r" in text:
            if text.endswith(b"\r"):  # perhaps half of a line's end
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = text.split(_END)
        self._rest = rest + held
        return [data for event in events if (data := _data_of(event)) is not None]

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event is held that has no end yet."""
        return not self._rest.strip()


def _data_of(event: bytes) -> bytes | None:
    lines = [line[len(_DATA) :] for line in event.split(b"\n") if line.startswith(_DATA)]
    if not lines:
        return None
    return b"\n".join(line.removeprefix(b" ") for line in lines)
