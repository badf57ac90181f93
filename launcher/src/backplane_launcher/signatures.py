"""Signatures put together at run time, for cyclopts to read in place of those that are written."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from backplane_launcher.commands import Command
from backplane_launcher.settings import LaunchSettings


def settings_from(values: dict[str, Any], **more: Any) -> LaunchSettings:
    """Whole settings from the part of them that was mounted as "settings"."""
    chosen: Any = values.get("settings", LaunchSettings())
    fields = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    return LaunchSettings(**{**fields, **more})


def positional(name: str, text: str, **default: Any) -> inspect.Parameter:
    """A word that stands alone, described by `text`."""
    kind: Any = str | None if default else str
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_ONLY,
        annotation=Annotated[kind, Parameter(help=text)],
        **default,
    )


def mounted(name: str, settings: type[Any]) -> inspect.Parameter:
    """All flags of a settings dataclass."""
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=settings(),
        annotation=Annotated[settings, Parameter(name="*")],
    )


def with_signature(
    function: Any, parameters: Sequence[inspect.Parameter]
) -> Callable[..., Command]:
    """What cyclopts reads of a function, in place of what is written there."""
    function.__signature__ = inspect.Signature(list(parameters))
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function
