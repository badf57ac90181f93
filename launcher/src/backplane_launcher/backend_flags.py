"""Backends' own settings on the command line: `--<backend>.<field>` and shorter flags they claim.

Works from `SettingField` data alone, so a backend in another Python mounts as any other.
"""

import dataclasses
import inspect
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from backplane_core.backend import BackendFacts, SettingField
from cyclopts import Group, Parameter

from backplane_launcher.choice import is_for_tests
from backplane_launcher.settings.flag import FINITE
from backplane_launcher.usage import UsageError

_TYPES: Final[Mapping[str, type]] = {"bool": bool, "int": int, "float": float, "str": str}


def long_flag(backend: str, field: str) -> str:
    """The flag that always names this setting."""
    return f"--{backend}.{field.replace('_', '-')}"


def short_flags(
    facts: Sequence[BackendFacts], reserved: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Further flags that one backend alone claims: flag to (backend, field).

    `reserved` are the launcher's own flags, which no backend can take.
    """
    claims = _claims(facts)
    counts = Counter(flag for flag, _, _ in claims)
    return {
        flag: (backend, field)
        for flag, backend, field in claims
        if counts[flag] == 1 and flag not in reserved
    }


def refuse_ambiguous(
    argv: Sequence[str], facts: Sequence[BackendFacts], reserved: Collection[str]
) -> None:
    """Refuse a flag that several backends claim, unless it is one of the launcher's, `reserved`.

    Raises:
        UsageError: `argv` has one; the message says what to write instead.
    """
    claims = _claims(facts)
    counts = Counter(flag for flag, _, _ in claims)
    for name in (token.partition("=")[0] for token in argv):
        if counts[name] > 1 and name not in reserved:
            longer = [long_flag(backend, field) for flag, backend, field in claims if flag == name]
            raise UsageError(
                f"{name} belongs to several backends", remedy=f"write {' or '.join(longer)}"
            )


def parameters(
    facts: Sequence[BackendFacts], reserved: Collection[str], named: str | None
) -> list[inspect.Parameter]:
    """One keyword parameter a backend, its type a dataclass of the backend's settings.

    Every field's default is None, so that only what the user set is sent to the worker. The help
    leaves out backends for tests, but for the one that the user `named`.
    """
    short = short_flags(facts, reserved)
    mounted: list[inspect.Parameter] = []
    for index, backend in enumerate(facts):
        if not backend.settings:
            continue
        group = Group(f"Backend {backend.name}", sort_key=100 + index)
        shown = not is_for_tests(backend) or backend.name == named
        fields = [
            (field.name, _annotation(backend.name, field, group, short, shown=shown), None)
            for field in backend.settings
        ]
        settings = dataclasses.make_dataclass(
            f"{backend.name}_settings",
            fields,
            namespace={"__module__": __name__},
            frozen=True,
            kw_only=True,
        )
        mounted.append(
            inspect.Parameter(
                backend.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=settings(),
                annotation=Annotated[settings, Parameter(name="*")],
            )
        )
    return mounted


def chosen_values(settings: Any) -> dict[str, Any]:
    """What the user set, of a dataclass made by `parameters`."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {name: value for name, value in values.items() if value is not None}


def _claims(facts: Sequence[BackendFacts]) -> list[tuple[str, str, str]]:
    return [
        (flag, backend.name, field.name)
        for backend in facts
        for field in backend.settings
        for flag in field.flags
    ]


def _annotation(
    backend: str,
    field: SettingField,
    group: Group,
    short: Mapping[str, tuple[str, str]],
    *,
    shown: bool,
) -> Any:
    shorter = [flag for flag in field.flags if short.get(flag) == (backend, field.name)]
    names = (long_flag(backend, field.name), *shorter)
    kind: Any = Literal[field.choices] if field.choices else _TYPES[field.type]  # pyright: ignore[reportInvalidTypeForm] - made from data
    default = "" if field.default in (None, "") else f" [default: {_shown(field.default)}]"
    # Only a boolean that is on by default needs a way to say no: `--<backend>.no-x`.
    negative = None if field.type == "bool" and field.default else ()
    parameter = Parameter(
        name=names,
        group=group,
        help=f"{field.help}{default}",
        validator=FINITE if field.type == "float" else None,
        negative=negative,
        show=shown,
    )
    return Annotated[kind | None, parameter]


def _shown(value: bool | float | str | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
