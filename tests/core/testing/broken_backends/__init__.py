"""A plugin module of broken backends: echo with one fault each, one for every standard test.

And, for each part of the suite, echo with the faults of all the other parts at once.
"""

from backplane_core.hookspecs import RegisterBackend, hookimpl
from backplane_core.testing.conformance.base import ConformanceBase
from backplane_core.testing.conformance.suite import BackendConformance, standard_tests
from backplane_core.testing.echo import EchoBackend

from broken_backends import features, lifecycle, memory, outputs, requests
from broken_backends.breaking import APART, BROKEN, FAULTS, together

__all__ = [
    "APART",
    "BROKEN",
    "ELSEWHERE",
    "EVERYWHERE",
    "PARTS",
    "features",
    "lifecycle",
    "memory",
    "outputs",
    "part_of",
    "requests",
]

PARTS: dict[str, type[ConformanceBase]] = {
    part.__name__: part for part in BackendConformance.__bases__
}


def part_of(test: str) -> str:
    """The part of the suite that a test belongs to."""
    return next(name for name, part in PARTS.items() if test in vars(part))


_COMBINED = [test for test in FAULTS if test in standard_tests() and test not in APART]
ELSEWHERE: dict[str, type[EchoBackend]] = {
    name: together(
        (test for test in _COMBINED if part_of(test) != name), f"breaks_all_but_{name.lower()}"
    )
    for name in PARTS
}
EVERYWHERE = together(_COMBINED, "breaks_everything")


@hookimpl
def backplane_register_backends(register: RegisterBackend) -> None:
    for backend in (*BROKEN.values(), *ELSEWHERE.values(), EVERYWHERE):
        register(backend)
