"""Asking backends live questions in their own interpreter: `python -m backplane_core.describe`.

A probe may load drivers, hang or crash; it does so in a child with a time limit, and the
answer is data. The same road serves backends of this interpreter and of another.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TextIO, TypeVar

import msgspec

from backplane_core.backend import (
    Availability,
    Available,
    Backend,
    BackendFacts,
    BestEffort,
    ModelSource,
    Native,
    Support,
    Unavailable,
    Unsupported,
)
from backplane_core.errors import BackendError, BackplaneError, ErrorInfo
from backplane_core.process import die_with_parent, lives
from backplane_core.registry import Registry, discover

_MARK = "backplane-describe: "

#: How the reason begins where a plugin, which may have held no backend at all, failed to load.
PLUGIN_FAILED = "its plugin failed to load"

AnswerT = TypeVar("AnswerT")


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to ask. `live` False asks for static facts only, which loads no driver.

    Attributes:
        backends: names; None asks all that are installed.
        model: also ask whether each supports it and which files it needs.
        asker_pid: the process that waits for the answer; without it there is nobody to answer.
    """

    backends: tuple[str, ...] | None = None
    model: ModelSource | None = None
    live: bool = True
    asker_pid: int | None = None


class BackendDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend's answers. None where the question was not asked or could not be."""

    facts: BackendFacts
    availability: Availability | None = None
    support: Support | None = None
    files: tuple[str, ...] | None = None
    files_error: ErrorInfo | None = None


def ask(
    python: str, question: Question, timeout: float, environ: Mapping[str, str] | None = None
) -> list[BackendDescription]:
    """Ask the interpreter `python`; blocks at most `timeout` seconds.

    `environ` is the child's environment; None passes this process's own on.

    Raises:
        BackendError: the interpreter cannot be started, crashed, hung or has no Backplane.
    """
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter the user named, and our own module
            [python, "-m", "backplane_core.describe"],
            input=msgspec.json.encode(msgspec.structs.replace(question, asker_pid=os.getpid())),
            capture_output=True,
            env=None if environ is None else dict(environ),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"{python} gave no answer about its backends within {timeout:g} s",
            remedy="a driver may hang; try the backend's own diagnosis, or another --backend",
        ) from error
    except OSError as error:
        raise BackendError(
            f"cannot start {python}: {error.strerror}", remedy="name an existing Python 3.11+"
        ) from error
    for line in reversed(done.stdout.decode(errors="replace").splitlines()):
        if line.startswith(_MARK):
            return _decode(python, line[len(_MARK) :])
    cause = done.stderr.decode(errors="replace").strip().splitlines()
    raise BackendError(
        f"{python} -m backplane_core.describe ended with status {done.returncode}: "
        f"{cause[-1] if cause else 'no message'}",
        remedy="is backplane-core installed in that environment?",
    )


def _decode(python: str, answer: str) -> list[BackendDescription]:
    try:
        return msgspec.json.decode(answer, type=list[BackendDescription])
    except msgspec.DecodeError as error:
        raise BackendError(
            f"{python} answered about its backends in another form: {error}",
            remedy="install the same version of backplane-core there and here",
        ) from error


def ask_one(
    python: str,
    name: str,
    question: Question,
    timeout: float,
    environ: Mapping[str, str] | None = None,
) -> BackendDescription:
    """Ask about one backend; whatever goes wrong becomes `Unavailable` with the cause."""
    narrowed = msgspec.structs.replace(question, backends=(name,))
    try:
        answers = ask(python, narrowed, timeout, environ)
    except BackendError as error:
        return _unavailable(name, error.message, error.remedy or "")
    for answer in answers:
        if answer.facts.name == name:
            return answer
    return _unavailable(
        name,
        f"{python} said nothing about it",
        "install the same version of backplane-core there and here",
    )


def _unavailable(name: str, reason: str, remedy: str) -> BackendDescription:
    return BackendDescription(
        facts=BackendFacts(name=name, error=reason),
        availability=Unavailable(reason=reason, remedy=remedy),
    )


def describe(question: Question, registry: Registry | None = None) -> list[BackendDescription]:
    """Answer in this interpreter."""
    registry = registry or discover()
    wanted = None if question.backends is None else set(question.backends)
    answers = [
        _describe(registry, facts, question)
        for facts in registry.facts()
        if wanted is None or facts.name in wanted
    ]
    missing = (wanted or set[str]()) - {answer.facts.name for answer in answers}
    answers += [
        BackendDescription(
            facts=BackendFacts(name=name, error="not installed"),
            availability=Unavailable(
                reason=f"no backend is called {name}",
                remedy=f"installed: {', '.join(sorted(registry.backends)) or 'none'}",
            ),
        )
        for name in sorted(missing)
    ]
    return answers


def _describe(registry: Registry, facts: BackendFacts, question: Question) -> BackendDescription:
    if facts.error:
        unavailable = Unavailable(
            reason=f"{PLUGIN_FAILED}: {facts.error}",
            remedy="reinstall its package or remove it, from the environment or from "
            "BACKPLANE_EXTRA_PLUGINS",
        )
        return BackendDescription(facts=facts, availability=unavailable)
    if not question.live:
        return BackendDescription(facts=facts)
    try:
        backend = registry.create(facts.name)
        availability = _expect(backend.probe(), (Available, Unavailable), "probe")
    except Exception as error:  # noqa: BLE001 - a probe can raise anything
        unavailable = Unavailable(
            reason=f"its probe failed: {type(error).__name__}: {error}",
            remedy="this is a defect of the backend; report it to its author",
        )
        return BackendDescription(facts=facts, availability=unavailable)
    if question.model is None:
        return BackendDescription(facts=facts, availability=availability)
    return _describe_model(facts, availability, backend, question.model)


def _describe_model(
    facts: BackendFacts, availability: Availability, backend: Backend, model: ModelSource
) -> BackendDescription:
    support: Support = Native()
    files: tuple[str, ...] | None = None
    files_error: ErrorInfo | None = None
    try:
        support = _expect(backend.supports(model), (Native, BestEffort, Unsupported), "supports")
        if not isinstance(support, Unsupported):
            files = tuple(_expect(backend.select_files(model), (tuple, list), "select_files"))
    except BackplaneError as error:
        files_error = ErrorInfo.of(error)
    except Exception as error:  # noqa: BLE001 - a plugin can raise anything
        support = Unsupported(reason=f"it failed on this model: {type(error).__name__}: {error}")
    return BackendDescription(
        facts=facts,
        availability=availability,
        support=support,
        files=files,
        files_error=files_error,
    )


def _expect(answer: AnswerT, types: tuple[type, ...], method: str) -> AnswerT:
    """A plugin's answer, if it is what the contract says: authors may run no type checker."""
    if isinstance(answer, types):
        return answer
    names = " or ".join(expected.__name__ for expected in types)
    raise TypeError(f"its {method} returned {answer!r:.100}, not {names}")


def main(stdin: TextIO, stdout: TextIO) -> None:
    """Read a question, print the answer on one marked line (plugins may print as they load)."""
    question = msgspec.json.decode(stdin.read(), type=Question)
    if question.asker_pid is not None:
        # First ask the kernel to end this process with its parent, then look whether the asker
        # still lives: a probe that hangs must not outlive a launcher killed in between.
        die_with_parent()
        if not lives(question.asker_pid):
            sys.stderr.write("whoever asked is gone, or in another process namespace\n")
            return
    answers = describe(question)
    stdout.write(_MARK + msgspec.json.encode(answers).decode() + "\n")
    stdout.flush()


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
