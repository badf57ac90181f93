"""The conformance suite over each broken backend. Run by `run_broken_suite`, with

BROKEN_SHARD="i/n" for every n-th backend from the i-th on; never collected by itself.
"""

import os
from typing import Any

import msgspec
from backplane_core.backend import RunnerSpec
from backplane_core.testing.conformance import BackendConformance
from broken_backends import BROKEN
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
_SHARD, _NUM_SHARDS = map(int, os.environ["BROKEN_SHARD"].split("/"))


class BrokenConformance(BackendConformance):
    """The standard tests over forked workers, under limits that are soon reached."""

    model = TestEcho.model
    engine = _ENGINE
    settings = {"step_seconds": 0.003}  # noqa: RUF012 -- the suite never writes it
    golden = TestEcho.golden
    adapters = TestEcho.adapters
    timeout_s = 10.0
    __test__ = False

    def start_worker(self, **changes: Any) -> ForkedWorker:
        fields = {"model": self.model, "engine": self.engine, "settings": self.settings}
        spec = RunnerSpec(**(fields | changes))
        return ForkedWorker(self.backend, spec, timeout_s=self.timeout_s)


for _test, _backend in list(BROKEN.items())[_SHARD::_NUM_SHARDS]:
    _name = f"TestBroken_{_test}"
    _facts = {"backend": _backend.name, "__test__": True}
    globals()[_name] = type(_name, (BrokenConformance,), _facts)
del TestEcho
