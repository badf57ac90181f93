"""The conformance suite over broken backends. Run by `run_broken_suite`, never by itself."""

from collections.abc import Iterator
from typing import Any

import msgspec
from backplane_core.backend import RunnerSpec
from backplane_core.testing.conformance.base import ConformanceBase
from backplane_core.testing.echo import EchoBackend
from broken_backends import APART, BROKEN, ELSEWHERE, EVERYWHERE, PARTS, part_of
from forked_worker import ForkedWorker
from test_echo_conformance import TestEcho

# Shorter sequences at a slower pace: as many seconds to meet a running request, fewer steps.
_ENGINE = msgspec.structs.replace(
    TestEcho.engine,
    max_input_tokens=176,
    max_total_tokens=192,
    max_batch_prefill_tokens=192,
    max_batch_total_tokens=4864,
)


class Broken(ConformanceBase):
    """What all have in common: forked workers, under limits that are soon reached."""

    backplane_conformance = True
    model = TestEcho.model
    engine = _ENGINE
    settings = {"step_seconds": 0.003}  # noqa: RUF012 -- the suite never writes it
    golden = TestEcho.golden
    adapters = TestEcho.adapters
    timeout_s = 10.0

    def start_worker(self, **changes: Any) -> ForkedWorker:
        fields = {"model": self.model, "engine": self.engine, "settings": self.settings}
        spec = RunnerSpec(**(fields | changes))
        return ForkedWorker(self.backend, spec, timeout_s=self.timeout_s)


def suites() -> Iterator[tuple[str, type[EchoBackend], str]]:
    """What is in the test class's name, the backend, the part of the suite it is held to."""
    for part in PARTS:  # first what takes longest, so that it is spread over the shards
        yield "everywhere", EVERYWHERE, part
        for test in APART:
            yield test, BROKEN[test], part
        yield "elsewhere", ELSEWHERE[part], part
    for test, backend in BROKEN.items():
        if test not in APART:
            yield test, backend, part_of(test)


for _what, _backend, _part in suites():
    _name = f"TestBroken__{_what}__{_part}"
    globals()[_name] = type(_name, (Broken, PARTS[_part]), {"backend": _backend.name})
del TestEcho, Broken
