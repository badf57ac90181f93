"""Environment variables as a second source of flags: which there are and which are not meant.

Every flag reads `BACKPLANE_<FLAG>` and, as in TGI, `<FLAG>`; the command line beats both.
"""

import re
import socket
import types
from collections.abc import Iterable, Mapping
from typing import Any, Final, Union, get_args, get_origin

from cyclopts import Token

from backplane_launcher.usage import UsageError

# Names too common for a program to claim without its prefix.
_PREFIX_ONLY: Final = frozenset({"BACKEND", "BACKEND_PYTHON", "WRITE_TIMEOUT"})

# Kubernetes gives every container variables such as PORT=tcp://10.0.0.7:80 for its services.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")

_LISTS_BY_COMMA: Final = frozenset({"--cors-allow-origin", "--allowed-host", "--backend-python"})

_TRUE: Final = frozenset({"1", "true"})
_FALSE: Final = frozenset({"0", "false"})


def variables_of(names: Iterable[str]) -> tuple[str, ...]:
    """The variables that a flag with these names reads, in order of precedence."""
    stems = [
        name.removeprefix("--").replace("-", "_").replace(".", "_").upper()
        for name in names
        if name.startswith("--") and not name.removeprefix("--").startswith("no-")
    ]
    bare = [stem for stem in stems if stem not in _PREFIX_ONLY]
    return (*(f"BACKPLANE_{stem}" for stem in stems), *bare)


def optional_parts(hint: Any) -> tuple[Any, ...]:
    """The members of a type that may be `X | None`; a plain type is its only member."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


class EnvironmentFlags:
    """A cyclopts configuration source over a mapping; `warnings` collects what it passed over."""

    def __init__(self, environ: Mapping[str, str], *, host_name: str | None = None) -> None:
        self._environ = environ
        self._host_name = socket.gethostname() if host_name is None else host_name
        self.warnings: list[str] = []

    def __call__(self, app: Any, commands: tuple[str, ...], arguments: Any) -> None:
        """Give each argument that the command line left alone its variable's value."""
        del app, commands
        for argument in arguments:
            if argument.tokens or argument.children or not argument.parse:
                continue
            if (found := self._find(argument.names, argument.hint)) is None:
                continue
            variable, values = found
            for index, value in enumerate(values):
                argument.append(Token(keyword=variable, value=value, source="env", index=index))

    def _find(self, names: tuple[str, ...], hint: Any) -> tuple[str, list[str]] | None:
        given = {
            variable: self._environ[variable].strip()
            for variable in variables_of(names)
            if self._environ.get(variable, "").strip()
        }
        given = {name: value for name, value in given.items() if self._meant(name, value)}
        if not given:
            return None
        ours = {name: value for name, value in given.items() if name.startswith("BACKPLANE_")}
        candidates = ours or given
        if len(set(candidates.values())) > 1:
            raise UsageError(f"{' and '.join(candidates)} contradict each other; set one of them")
        variable, value = next(iter(candidates.items()))
        if bool in optional_parts(hint):
            return variable, [_boolean(variable, value)]
        if _LISTS_BY_COMMA.intersection(names):
            return variable, [part.strip() for part in value.split(",") if part.strip()]
        return variable, [value]

    def _meant(self, variable: str, value: str) -> bool:
        if _SERVICE_LINK.match(value) and not variable.startswith("BACKPLANE_"):
            self._warn(f"{variable}={value} looks like a Kubernetes service link and is ignored")
            return False
        if variable != "HOSTNAME":
            return True
        # Containers and many shells export the machine's own name as HOSTNAME. Nobody means by
        # that to listen on one address only, so TGI listens on all of them, and so do we.
        if value == self._host_name:
            self._warn(
                f"HOSTNAME={value} is this machine's own name, not a choice, and is ignored; "
                "--hostname or BACKPLANE_HOSTNAME says where to listen"
            )
            return False
        if not _resolves(value):
            self._warn(f"HOSTNAME={value} is no address of this machine and is ignored")
            return False
        return True

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def _boolean(variable: str, value: str) -> str:
    lowered = value.lower()
    if lowered in _TRUE:
        return "true"
    if lowered in _FALSE:
        return "false"
    raise UsageError(f"{variable}={value} is not a boolean; write 1, 0, true or false")


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, 0, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return True
