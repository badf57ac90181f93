import importlib.util
import sys
from pathlib import Path

import pytest


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


@pytest.fixture(scope="session")
def stack():
    """One server and one echo worker for every test that disturbs neither."""
    with stack_module.Stack() as running:
        yield running


@pytest.fixture(scope="session", name="stack_module")
def stack_module_fixture():
    return stack_module
