"""How the broken backends are made: echo with one fault, filed under the test it must fail.

Faults of one kind share a hook, and a backend may have several faults at once: each of its
classes' hooks is called in turn, so that none hides another.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from backplane_core.messages import RunnerStats, SequenceDelta, StepOutput, Submit
from backplane_core.testing.echo import EchoBackend
from backplane_core.testing.echo_runner import EchoRunner

FAULTS: dict[str, type[Any]] = {}
BROKEN: dict[str, type[EchoBackend]] = {}
#: Tests whose fault leaves nothing to be seen of others beside it.
APART: list[str] = []


def breaks(test: str, *, apart: bool = False) -> Callable[[type[Any]], type[Any]]:
    """File a backend, or the backend around a runner, under the one test that it fails.

    One that is `apart` is not put together with others.
    """

    def file(cls: type[Any]) -> type[Any]:
        if test in FAULTS:
            raise ValueError(f"{test} is broken twice")
        FAULTS[test] = cls
        BROKEN[test] = together([test], "fails_" + test.removeprefix("test_"))
        if apart:
            APART.append(test)
        return cls

    return file


def together(tests: Iterable[str], name: str) -> type[EchoBackend]:
    """A backend with the faults of all these tests."""
    faults = [FAULTS[test] for test in tests]
    runners = tuple(one for one in faults if issubclass(one, EchoRunner))
    backends = tuple(one for one in faults if not issubclass(one, EchoRunner))
    runner = type("Runner", runners or (EchoRunner,), {})
    return type("Broken", (*backends, EchoBackend), {"name": name, "runner_class": runner})


def hooks(runner: EchoRunner, name: str) -> Iterator[Callable[..., Any]]:
    """All methods of this name, of whichever faults the runner has."""
    for cls in type(runner).__mro__:
        if name in vars(cls):
            yield vars(cls)[name].__get__(runner)


def changed(struct: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(struct, **fields)


class ChangingRequests(EchoRunner):
    """Misreads requests: each `change` says what it takes them for."""

    def submit(self, request: Submit) -> None:
        for change in hooks(self, "change"):
            request = change(request)
        super().submit(request)


class ChangingSampling(ChangingRequests):
    """Likewise by `change_sampling`."""

    def change(self, request: Submit) -> Submit:
        sampling = request.sampling
        for change in hooks(self, "change_sampling"):
            sampling = change(sampling)
        return changed(request, sampling=sampling)


class ChangingStopping(ChangingRequests):
    """Likewise by `change_stopping`."""

    def change(self, request: Submit) -> Submit:
        stopping = request.stopping
        for change in hooks(self, "change_stopping"):
            stopping = change(stopping, request)
        return changed(request, stopping=stopping)


class ChangingDeltas(EchoRunner):
    """Miscopies outputs, by `change_delta`. `asked` has every request that came."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: dict[str, Submit] = {}

    def submit(self, request: Submit) -> None:
        self.asked[request.request_id] = request
        super().submit(request)

    def poll(self, timeout: float) -> StepOutput:
        output = super().poll(timeout)
        deltas = [self._changed(delta, self.asked[delta.request_id]) for delta in output.deltas]
        return changed(output, deltas=deltas)

    def _changed(self, delta: SequenceDelta, request: Submit) -> SequenceDelta:
        for change in hooks(self, "change_delta"):
            delta = change(delta, request)
        return delta


class Leaking(EchoRunner):
    """Cancelled memory comes back 1.6 seconds late, of the requests that a `leaks` names."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._leaks: list[tuple[float, int]] = []

    def cancel(self, request_id: str, index: int | None = None) -> None:
        request = self._requests.get(request_id)
        super().cancel(request_id, index)
        leaking = hooks(self, "leaks")
        if request is not None and any(leaks(request.request, index) for leaks in leaking):
            self._leaks.append((time.monotonic() + 1.6, 64))

    def stats(self) -> RunnerStats:
        stats = super().stats()
        leaked = sum(size for until, size in self._leaks if until > time.monotonic())
        return changed(
            stats,
            used_tokens=stats.used_tokens + leaked,
            free_tokens=stats.free_tokens - leaked,
        )
