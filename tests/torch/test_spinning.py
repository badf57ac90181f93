"""Compute threads spin briefly, unless the environment says otherwise."""

import os

import pytest
from backplane_torch.spinning import limit_spinning


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch):
    # Set and taken away, so that what a test sets is taken away behind it.
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_short_time_by_itself():
    limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == "3000"


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "infinity"), ("OMP_WAIT_POLICY", "active")]
)
def test_what_is_asked_for_stays(monkeypatch, name, value):
    before = dict(os.environ)
    monkeypatch.setenv(name, value)
    limit_spinning()
    assert dict(os.environ) == {**before, name: value}
