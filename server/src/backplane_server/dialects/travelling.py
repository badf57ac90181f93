"""Which values of a request's JSON can be sent on, to the process that renders templates."""

from typing import Any, Final

import msgspec

_SPARE_LEVELS: Final = 64


def can_travel(value: Any) -> bool:
    """Whether a value from JSON can be sent, inside of others and with room to spare.

    It cannot be where it is nested too deep or holds an integer beyond 64 bits.
    """
    for _ in range(_SPARE_LEVELS):
        value = [value]
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, RecursionError):
        return False
    return True
