import importlib.util
import sys
from pathlib import Path

import pytest
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.messages import ModelInfo, RunnerInfo
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary


def _load(name: str):
    """Test helpers are modules beside the tests, which importlib mode keeps off the path."""
    spec = importlib.util.spec_from_file_location(
        f"server_tests_{name}", Path(__file__).with_name(f"{name}.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


stack_module = _load("stack")
_load("metrics_tally")


@pytest.fixture(scope="session")
def stack():
    """One server and one echo worker for every test that disturbs neither."""
    with stack_module.Stack() as running:
        yield running


@pytest.fixture(scope="session", name="stack_module")
def stack_module_fixture():
    return stack_module


@pytest.fixture(scope="session")
def info():
    """Makes what a small worker says of itself, with the capabilities asked for."""

    def make(**capabilities) -> RunnerInfo:
        return RunnerInfo(
            model=ModelInfo(model_id="m", backend="plain", backend_version="1", device="cpu"),
            limits=Limits(
                max_total_tokens=100,
                max_input_tokens=90,
                max_batch_tokens=64,
                max_sequences=4,
                max_waiting_requests=8,
                cache_tokens=400,
            ),
            capabilities=Capabilities(**capabilities),
            vocabulary=Vocabulary(tokens=[b"a"]),
            tokenizer=RemoteTokenizer(),
        )

    return make
