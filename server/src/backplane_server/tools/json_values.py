"""Decoded JSON, looked at: what a value is, and what is said where it should be another."""

from typing import Any, NoReturn, cast

from backplane_core.errors import ValidationError


def as_object(value: Any) -> dict[str, Any] | None:
    """The value, if it is an object."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: Any) -> list[Any] | None:
    """The value, if it is a list."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def refuse(field: str, why: str) -> NoReturn:
    """Say what is wrong with a field.

    Raises:
        ValidationError: always; it names the field.
    """
    raise ValidationError(f"`{field}` {why}", parameter=field)
