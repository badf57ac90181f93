"""How the broken backends are made: echo with one fault, filed under the test it must fail."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
from backplane_core.messages import RunnerStats, SequenceDelta, StepOutput, Submit
from backplane_core.testing.echo import EchoBackend
from backplane_core.testing.echo_runner import EchoRunner

BROKEN: dict[str, type[EchoBackend]] = {}


def breaks(test: str) -> Callable[[type[Any]], type[Any]]:
    """File a backend, or the backend around a runner, under the one test that it fails."""

    def file(cls: type[Any]) -> type[Any]:
        if test in BROKEN:
            raise ValueError(f"{test} is broken twice")
        facts: dict[str, Any] = {"name": "fails_" + test.removeprefix("test_")}
        if issubclass(cls, EchoRunner):
            BROKEN[test] = type(cls.__name__, (EchoBackend,), facts | {"runner_class": cls})
        else:
            BROKEN[test] = type(cls.__name__, (cls,), facts)
        return cls

    return file


def changed(struct: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(struct, **fields)


class ChangingRequests(EchoRunner):
    """Misreads requests: `change` is what it takes them for."""

    def submit(self, request: Submit) -> None:
        super().submit(self.change(request))

    def change(self, request: Submit) -> Submit:
        raise NotImplementedError


class ChangingSampling(ChangingRequests):
    def change(self, request: Submit) -> Submit:
        return changed(request, sampling=self.change_sampling(request.sampling))

    def change_sampling(self, sampling: Any) -> Any:
        raise NotImplementedError


class ChangingStopping(ChangingRequests):
    def change(self, request: Submit) -> Submit:
        return changed(request, stopping=self.change_stopping(request.stopping, request))

    def change_stopping(self, stopping: Any, request: Submit) -> Any:
        raise NotImplementedError


class ChangingDeltas(EchoRunner):
    """Miscopies outputs. `asked` has every request that came."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: dict[str, Submit] = {}

    def submit(self, request: Submit) -> None:
        self.asked[request.request_id] = request
        super().submit(request)

    def poll(self, timeout: float) -> StepOutput:
        output = super().poll(timeout)
        deltas = [self.change_delta(delta, self.asked[delta.request_id]) for delta in output.deltas]
        return changed(output, deltas=deltas)

    def change_delta(self, delta: SequenceDelta, request: Submit) -> SequenceDelta:
        raise NotImplementedError


class Leaking(EchoRunner):
    """Cancelled memory comes back 1.6 seconds late, of the requests that `leaks` names."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._leaks: list[tuple[float, int]] = []

    def cancel(self, request_id: str, index: int | None = None) -> None:
        request = self._requests.get(request_id)
        super().cancel(request_id, index)
        if request is not None and self.leaks(request.request, index):
            self._leaks.append((time.monotonic() + 1.6, 64))

    def stats(self) -> RunnerStats:
        stats = super().stats()
        leaked = sum(size for until, size in self._leaks if until > time.monotonic())
        return changed(
            stats,
            used_tokens=stats.used_tokens + leaked,
            free_tokens=stats.free_tokens - leaked,
        )

    def leaks(self, request: Submit, index: int | None) -> bool:
        raise NotImplementedError
