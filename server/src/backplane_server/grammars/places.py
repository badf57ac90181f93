"""Where a value stands in JSON, as a sentence about it says: `guided_json.properties.a.enum[2]`."""

from typing import Final, NamedTuple

_MAX_STEP_CHARS: Final = 40
_MAX_CHARS: Final = 200


class Place(NamedTuple):
    """A key or an index, below another place or the field itself.

    A link instead of a text: one is made for every value, and shown for the one that is wrong.
    """

    above: "Place | str"
    step: str | int

    def __str__(self) -> str:
        """The whole path; what is long in it is cut, since keys are the client's."""
        steps: list[str] = []
        place: Place | str = self
        while isinstance(place, Place):
            step = place.step
            steps.append(f"[{step}]" if isinstance(step, int) else f".{_cut(step)}")
            place = place.above
        path = place + "".join(reversed(steps))
        half = _MAX_CHARS // 2
        return path if len(path) <= _MAX_CHARS else f"{path[:half]}…{path[-half:]}"


def _cut(step: str) -> str:
    return step if len(step) <= _MAX_STEP_CHARS else f"{step[:_MAX_STEP_CHARS]}…"
