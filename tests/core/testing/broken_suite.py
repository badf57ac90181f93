"""The conformance suite over each broken backend. Run by `test_broken_backends`, with

BROKEN_SHARD="i/n" for every n-th backend from the i-th on; never collected by itself.
"""

import os
from pathlib import Path

import msgspec
from backplane_core.testing.conformance import BackendConformance
from broken_backends import BROKEN
from test_echo_conformance import TestEcho

# Half as long sequences at half the pace: as many seconds to meet a running request, fewer steps.
_ENGINE = msgspec.structs.replace(
    TestEcho.engine,
    max_input_tokens=224,
    max_total_tokens=256,
    max_batch_prefill_tokens=256,
    max_batch_total_tokens=6144,
)
_HERE = Path(__file__).parent
_SHARD, _NUM_SHARDS = map(int, os.environ["BROKEN_SHARD"].split("/"))

for _test, _backend in list(BROKEN.items())[_SHARD::_NUM_SHARDS]:
    _name = f"TestBroken_{_test}"
    globals()[_name] = type(
        _name,
        (BackendConformance,),
        {
            "backend": _backend.name,
            "model": TestEcho.model,
            "engine": _ENGINE,
            "settings": {"step_seconds": 0.002},
            "golden": TestEcho.golden,
            "adapters": TestEcho.adapters,
            "timeout_s": 10.0,
            "environment": {
                "BACKPLANE_EXTRA_PLUGINS": "broken_backends",
                "PYTHONPATH": str(_HERE),
            },
        },
    )
del TestEcho
