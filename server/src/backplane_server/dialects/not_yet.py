"""Parameters that the APIs define and this version lacks: refused by name, never ignored."""

from typing import Any

from backplane_core.errors import UnsupportedError


def refuse_not_yet(parameters: dict[str, Any]) -> None:
    """Refuse the first parameter that asks for something.

    Args:
        parameters: the client's name → whatever asks for it; None, False and empty ask nothing.

    Raises:
        UnsupportedError: naming the parameter.
    """
    for name, value in parameters.items():
        if value is None or value is False or value in ("", [], {}):
            continue
        raise UnsupportedError(f"`{name}` is not available in this version", parameter=name)
