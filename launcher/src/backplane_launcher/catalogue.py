"""Which backends there are and in whose Python each lives; asks them all side by side.

Static facts come from this interpreter's plugins, or by `describe` from another's.
"""

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backplane_core.backend import BackendFacts, ModelSource, Unavailable
from backplane_core.describe import BackendDescription, Question, ask, ask_one
from backplane_core.errors import BackendError
from backplane_core.registry import discover

from backplane_launcher.launch_documents import child_environment
from backplane_launcher.usage import UsageError

STATIC_TIMEOUT_S = 30.0
LIVE_TIMEOUT_S = 60.0
_FLAG = "--backend-python"


def interpreters(argv: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Backend name to Python, from the command line or else the environment.

    Read before the parser is built, since the backends found there have flags of their own.

    Raises:
        UsageError: a value is not NAME=PATH.
    """
    values = _values_of(_FLAG, argv)
    if not values:
        values = environ.get("BACKPLANE_BACKEND_PYTHON", "").split(",")
    pairs = [value.strip().partition("=") for value in values if value.strip()]
    if bad := [name for name, _, path in pairs if not name.isidentifier() or not path]:
        raise UsageError(
            f"{_FLAG} {bad[0]} is not NAME=PATH", remedy="for example vllm=/venv/bin/python"
        )
    return {name: path for name, _, path in pairs}


def named_backend(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The backend that `--backend` or its variable names, before the parser is built."""
    values = _values_of("--backend", argv)
    return values[-1] if values else environ.get("BACKPLANE_BACKEND", "").strip() or None


def _values_of(flag: str, argv: Sequence[str]) -> list[str]:
    values: list[str] = []
    for index, token in enumerate(argv):
        if token == flag and index + 1 < len(argv):
            values.append(argv[index + 1])
        elif token.startswith(f"{flag}="):
            values.append(token.removeprefix(f"{flag}="))
    return values


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Static facts of every backend, by name, and the Pythons of those that live elsewhere."""

    facts: tuple[BackendFacts, ...]
    pythons: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def load(cls, pythons: Mapping[str, str]) -> "Catalogue":
        """Look at this interpreter's plugins and at those of `pythons`.

        Raises:
            BackendError: such a Python cannot be started or has no Backplane, or two plugins
                register one name.
        """
        found = {facts.name: facts for facts in discover().facts()}
        for name, python in pythons.items():
            found[name] = _facts_from(name, python)
        return cls(facts=tuple(found[name] for name in sorted(found)), pythons=pythons)

    def python_of(self, backend: str) -> str:
        """The interpreter that runs this backend's workers."""
        return self.pythons.get(backend, sys.executable)

    def names(self) -> list[str]:
        """Every backend, failed ones included."""
        return [facts.name for facts in self.facts]

    def ask(
        self,
        model: ModelSource | None,
        names: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[BackendDescription]:
        """Ask backends live, each in a process of its own, so that a hung one delays no other."""
        wanted = self.names() if names is None else list(names)
        question = Question(model=model)
        limit_s = LIVE_TIMEOUT_S if timeout_s is None else timeout_s
        answers: dict[str, BackendDescription] = {}

        environ = child_environment(os.environ)

        def ask_about(name: str) -> None:
            try:
                answers[name] = ask_one(self.python_of(name), name, question, limit_s, environ)
            except Exception as error:  # noqa: BLE001 - one that cannot be asked hides no other
                answers[name] = _no_answer(name, error)

        # Daemons: a launcher told to stop does not wait for a driver that hangs.
        threads = [threading.Thread(target=ask_about, args=(name,), daemon=True) for name in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers[name] for name in wanted]


def _facts_from(name: str, python: str) -> BackendFacts:
    question = Question(backends=(name,), live=False)
    try:
        answers = ask(python, question, STATIC_TIMEOUT_S, child_environment(os.environ))
    except BackendError as error:
        raise BackendError(
            f"{_FLAG} {name}={python}: {error.message}",
            remedy=f"correct {_FLAG}: {error.remedy}" if error.remedy else f"correct {_FLAG}",
        ) from error
    named = (answer.facts for answer in answers if answer.facts.name == name)
    return next(named, BackendFacts(name=name, error=f"{python} said nothing about it"))


def _no_answer(name: str, error: Exception) -> BackendDescription:
    reason = f"it could not be asked: {type(error).__name__}: {error}"
    return BackendDescription(
        facts=BackendFacts(name=name, error=reason),
        availability=Unavailable(reason=reason, remedy="reinstall its package, or remove it"),
    )
