"""Environment variables as a second source of flags: which there are and which are not meant.

Every flag reads `BACKPLANE_<FLAG>` and, as in TGI, `<FLAG>`; some read SageMaker's name for it
after these. The command line beats all.
"""

import difflib
import re
import socket
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Union, get_args, get_origin

from cyclopts import Token

from backplane_launcher import sagemaker
from backplane_launcher.listener import resolves
from backplane_launcher.log_filter import TAKEN, level_of
from backplane_launcher.settings.flag import boolean_word
from backplane_launcher.usage import UsageError

_PREFIX: Final = "BACKPLANE_"

# Ours, but no flags: plugins under development, and what builds and tests read.
_NO_FLAGS: Final = frozenset(
    {"BACKPLANE_CACHE", "BACKPLANE_EXTRA_PLUGINS", "BACKPLANE_REQUIRE_NIX"}
)

# What Kubernetes sets for a service whose name begins so; nobody wrote these by hand.
_OF_A_SERVICE: Final = re.compile(
    r"BACKPLANE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)

# Names too common for a program to claim without its prefix.
_PREFIX_ONLY: Final = frozenset(
    {
        "BACKEND",
        "BACKEND_PYTHON",
        "ENV",
        "REQUEST_TIMEOUT",
        "SSL_CERTFILE",
        "SSL_KEYFILE",
        "TLS_CERT_FILE",
        "TLS_KEY_FILE",
        "WRITE_TIMEOUT",
    }
)

# Flags of single commands, which no variable sets.
_LINE_ONLY: Final = frozenset(
    {
        *("--gamma", "--json", "--tokens", "--type", "--url"),
        *("--api", "--compare", "--concurrency", "--dataset", "--duration", "--extra", "--keep"),
        *("--model", "--no-stream", "--output-length", "--per-request", "--prompt-length"),
        *("--prompts", "--rate", "--requests", "--rounds", "--seed", "--shared-prefix", "--slo"),
        *("--start", "--start-timeout", "--stop-at-end", "--timeout", "--token-ids", "--turns"),
        *("--warmup", "--batch-size", "--decode-length", "--runs", "--sequence-length"),
        *("--warmups", "--temperature", "--top-k", "--top-p", "--typical-p", "--watermark"),
        *("--frequency-penalty", "--repetition-penalty", "--top-n-tokens"),
    }
)

# Kubernetes gives every container variables such as PORT=tcp://10.0.0.7:80 for its services.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")

_LISTS_BY_COMMA: Final = frozenset({"--allowed-host", "--backend-python"})

# Names of one flag that nobody sets together, though they be equal: TGI refuses it.
_EXCLUSIVE: Final = frozenset({"--max-input-tokens", "--max-input-length"})

# What ngrok's own program reads; by itself it asks TGI for nothing.
_NOTHING_ALONE: Final = frozenset({"NGROK_AUTHTOKEN", "NGROK_EDGE"})


def variables_of(names: Iterable[str]) -> tuple[str, ...]:
    """The variables that a flag with these names reads, in order of precedence."""
    stems = [
        name.removeprefix("--").replace("-", "_").replace(".", "_").upper()
        for name in names
        if name.startswith("--") and not name.startswith("--no-") and name not in _LINE_ONLY
    ]
    bare = [stem for stem in stems if stem not in _PREFIX_ONLY]
    theirs = [variable for stem in bare for variable in sagemaker.variables_of(stem)]
    return (*(f"BACKPLANE_{stem}" for stem in stems), *bare, *theirs)


def optional_parts(hint: Any) -> tuple[Any, ...]:
    """The members of a type that may be `X | None`; a plain type is its only member."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


class EnvironmentFlags:
    """A cyclopts configuration source over a mapping; `warnings` collects what it passed over."""

    def __init__(self, environ: Mapping[str, str], *, host_name: str | None = None) -> None:
        self._environ = {**environ, **sagemaker.defaults(environ)}
        self._host_name = socket.gethostname() if host_name is None else host_name
        self.warnings: list[str] = []
        self._spelled: dict[str, str] = {}
        self._known: set[str] = set(_NO_FLAGS)

    def spelled(self, flag: str) -> str:
        """How the flag was given: another of its names, a variable; itself where it was not."""
        return self._spelled.get(flag, flag)

    def warn_of_unknown(self) -> None:
        """Once the flags are read: warn of variables with our prefix that none of them reads."""
        for variable in sorted(self._environ):
            if not variable.startswith(_PREFIX) or variable in self._known:
                continue
            if _OF_A_SERVICE.fullmatch(variable) or not self._environ[variable].strip():
                continue
            close = difflib.get_close_matches(variable, sorted(self._known), n=1, cutoff=0.8)
            meant = f"; did you mean {close[0]}?" if close else ""
            self._warn(f"{variable} is no variable of Backplane's and is ignored{meant}")

    def __call__(self, app: Any, commands: tuple[str, ...], arguments: Any) -> None:
        """Give each argument that the command line left alone its variable's value."""
        del app, commands
        for argument in arguments:
            if argument.children or not argument.parse:
                continue
            self._known.update(variables_of(argument.names))
            if argument.tokens:
                self._refuse_second_name(argument.names, argument.tokens)
                self._spelled[argument.names[0]] = str(argument.tokens[-1].keyword)
                continue
            if (found := self._find(argument.names, argument.hint)) is None:
                continue
            variable, values = found
            self._spelled[argument.names[0]] = variable
            for index, value in enumerate(values):
                argument.append(Token(keyword=variable, value=value, source="env", index=index))

    def _find(self, names: tuple[str, ...], hint: Any) -> tuple[str, list[str]] | None:
        given = self._given(names)
        if not given:
            return None
        if len(set(given.values())) > 1 or (len(given) > 1 and _EXCLUSIVE.intersection(names)):
            raise UsageError(f"{' and '.join(given)} contradict each other; set one of them")
        variable, value = next(iter(given.items()))
        if bool in optional_parts(hint):
            return variable, [_boolean(variable, value)]
        if "--log-level" in names:
            return variable, [self._log_level(variable, value)]
        if _LISTS_BY_COMMA.intersection(names):
            return variable, [part.strip() for part in value.split(",") if part.strip()]
        return variable, [value]

    def _given(self, names: tuple[str, ...]) -> dict[str, str]:
        """What is set and meant, of the variables with the highest precedence that are."""
        given = {
            variable: self._environ[variable].strip()
            for variable in variables_of(names)
            if self._environ.get(variable, "").strip()
        }
        given = {name: value for name, value in given.items() if self._meant(name, value)}
        ours = {name: value for name, value in given.items() if name.startswith("BACKPLANE_")}
        theirs = {name: value for name, value in given.items() if name in sagemaker.VARIABLES}
        bare = {name: value for name, value in given.items() if name not in {*ours, *theirs}}
        return ours or bare or theirs

    def _refuse_second_name(self, names: tuple[str, ...], tokens: Sequence[Token]) -> None:
        used = {token.keyword for token in tokens}
        others = tuple(sorted(_EXCLUSIVE.intersection(names) - used))
        if used & _EXCLUSIVE and (given := self._given(others)):
            raise UsageError(
                f"{' and '.join(sorted(filter(None, used)))} and {', '.join(given)} name one limit",
                remedy="set one of them",
            )

    def _log_level(self, variable: str, value: str) -> str:
        level = level_of(value)
        if level is None:
            self._warn(
                f"{variable}={value} names no level of a log and is ignored; what is taken: {TAKEN}"
            )
            return "info"
        return level

    def _meant(self, variable: str, value: str) -> bool:
        if _SERVICE_LINK.match(value):  # BACKPLANE_PORT too: a service may be called "backplane"
            self._warn(f"{variable}={value} looks like a Kubernetes service link and is ignored")
            return False
        if variable in _NOTHING_ALONE and boolean_word(self._environ.get("NGROK", "0")) == "false":
            self._warn(f"{variable} is ignored: there is no --ngrok here")
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
        if not resolves(value):
            self._warn(f"HOSTNAME={value} is no address of this machine and is ignored")
            return False
        return True

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def _boolean(variable: str, value: str) -> str:
    word = boolean_word(value)
    if word is None:
        raise UsageError(f"{variable}={value} is not a boolean; write 1, 0, true or false")
    return word
