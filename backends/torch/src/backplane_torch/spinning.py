"""How long PyTorch's compute threads spin while they wait for each other. Import-light.

OpenMP reads it from the environment when PyTorch is imported, once.
"""

import os
from typing import Final

# Some 50 microseconds: what lies between two products of a decode step. Then a thread sleeps. By
# itself GNU's OpenMP spins for milliseconds, on the CPU that a server, the worker's other thread or
# another process needs to let it go on: where the CPUs are shared a layer then takes ten times as
# long, and on a machine of its own it wins 3 %.
_SPIN_COUNT: Final = "3000"
_ASKED: Final = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning() -> None:
    """Before PyTorch is imported; whoever starts the worker may have said otherwise."""
    if not any(name in os.environ for name in _ASKED):
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
