"""Values as JSON, for frames that are a prefix rendered once and what is new.

The encoder's method itself: a function around it would cost as much again, for every token.
"""

from collections.abc import Callable
from typing import Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode

json_text: Final[Callable[[str], bytes]] = _encode
json_number: Final[Callable[[float | None], bytes]] = _encode
