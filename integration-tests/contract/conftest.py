"""Deployments that the contract's tests share: the demo model's, and echo's with its exact answers.

Echo repeats a prompt or a chat's last turn byte by byte and then ends, so a test knows each token.
"""

import contextlib
from collections.abc import Iterator

import pytest
from deployment import Deployment, deployed

ECHO = ("--model-id", "echo:contract", "--backend", "echo")


@contextlib.contextmanager
def kept(*arguments: str) -> Iterator[Deployment]:
    """A deployment that must end well."""
    with deployed(*arguments) as deployment:
        yield deployment
        assert deployment.stop() == 0, deployment.output


@pytest.fixture(scope="session")
def echo() -> Iterator[Deployment]:
    with kept(*ECHO) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def strict() -> Iterator[Deployment]:
    """Echo as `echo` is, but for `--tgi-strict`."""
    with kept(*ECHO, "--tgi-strict") as deployment:
        yield deployment


@pytest.fixture(scope="session")
def cors() -> Iterator[Deployment]:
    with kept(*ECHO, "--cors-allow-origin", "https://page.example") as deployment:
        yield deployment
