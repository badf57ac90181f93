"""How long llama.cpp's threads spin at a barrier: said to libgomp before it is loaded."""

import os
import subprocess
import sys

import pytest

_NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def said(**given):
    """What libgomp reads in a fresh process that was given some of it."""
    program = (
        "import os, backplane_llamacpp.native\n"
        f"print(*(os.environ.get(name, 'unset') for name in {_NAMES!r}))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in _NAMES}
    command = [sys.executable, "-c", program]
    run = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment | given
    )
    return run.stdout.split()


def test_they_spin_briefly():
    assert said() == ["unset", "50000"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"OMP_WAIT_POLICY": "active"}, ["active", "unset"]),
        ({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "7"}, ["passive", "7"]),
        ({"GOMP_SPINCOUNT": "7"}, ["unset", "7"]),
    ],
)
def test_whoever_says_otherwise_is_obeyed(given, expected):
    assert said(**given) == expected
