"""Fixtures over a real deployment of the bundled demo model."""

from collections.abc import Iterator

import pytest
from deployment import Deployment, deployed


@pytest.fixture(scope="session")
def demo() -> Iterator[Deployment]:
    """`backplane` without a model argument, shared by tests that leave it as they found it."""
    with deployed() as deployment:
        yield deployment
        assert deployment.stop() == 0, deployment.output
