"""`python -m backplane_core.quantize`: a model written in another type, by a backend.

It runs in the backend's own interpreter, as an errand.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from backplane_core import errand
from backplane_core.backend import ModelSource, ProgressSink
from backplane_core.errors import BackendError
from backplane_core.registry import discover


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to make: the local model `source` as the new file `target`."""

    backend: str
    source: ModelSource
    target: str
    quantization: str


def run(
    python: str, order: Order, progress: ProgressSink, environ: Mapping[str, str] | None = None
) -> None:
    """Have the interpreter `python` carry out the order; blocks until it is done.

    What the engine prints goes to standard error. `environ` is the child's environment; None
    passes this process's own on.

    Raises:
        BackplaneError: what the backend said stands in the way.
        BackendError: the interpreter cannot be started, or it crashed.
    """
    errand.send(
        python,
        "backplane_core.quantize",
        order,
        progress,
        doing=f"backend {order.backend} stopped while it wrote {order.target}",
        environ=environ,
    )


def carry_out(order: Order, progress: ProgressSink) -> None:
    """Carry out the order in this interpreter.

    Raises:
        BackplaneError: what stands in the way; the target is there already, for one.
    """
    target = Path(order.target)
    if target.exists():
        raise BackendError(f"{target} exists already", remedy="remove it, or name another file")
    backend = discover().create(order.backend)
    backend.quantize(order.source, target, order.quantization, progress)


if __name__ == "__main__":
    errand.carry_out_here(Order, carry_out, sys.stdin, sys.stdout)
