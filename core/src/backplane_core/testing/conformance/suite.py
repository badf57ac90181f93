"""`BackendConformance`: all parts together, and the guard against quietly changed tests."""

from typing import Any, ClassVar

import pytest

from backplane_core.testing.conformance.batching import BatchingTests
from backplane_core.testing.conformance.cancellation import CancellationTests
from backplane_core.testing.conformance.failures import FailureTests
from backplane_core.testing.conformance.features import FeatureTests
from backplane_core.testing.conformance.lifecycle import LifecycleTests
from backplane_core.testing.conformance.logprobs import LogprobTests
from backplane_core.testing.conformance.prefixes import PrefixTests
from backplane_core.testing.conformance.pressure import PressureTests
from backplane_core.testing.conformance.sampling import SamplingTests
from backplane_core.testing.conformance.stopping import StoppingTests
from backplane_core.testing.conformance.tokens import TokenTests

_QUIET_MARKS = {"skip", "skipif", "xfail"}


class BackendConformance(
    LifecycleTests,
    TokenTests,
    StoppingTests,
    BatchingTests,
    CancellationTests,
    PrefixTests,
    SamplingTests,
    LogprobTests,
    FeatureTests,
    PressureTests,
    FailureTests,
):
    """Subclass it, name the backend and a small model, and let pytest collect the subclass.

    A standard test can be neither overridden nor marked away: what a backend cannot do, it
    does not declare, and the test that needs it skips, if `allowed_skips` holds its name.
    """

    backplane_conformance: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a subclass that changes what is tested."""
        super().__init_subclass__(**kwargs)
        standard = standard_tests()
        changed = [name for name in standard if getattr(cls, name) is not standard[name]]
        if changed:
            raise TypeError(f"{cls.__name__} overrides standard tests: {', '.join(changed)}")
        if unknown := sorted(cls.allowed_skips - set(standard)):
            raise TypeError(f"{cls.__name__}.allowed_skips holds no tests: {', '.join(unknown)}")
        marked: Any = getattr(cls, "pytestmark", [])
        marks: list[pytest.Mark] = list(marked) if isinstance(marked, list) else [marked]  # pyright: ignore[reportUnknownArgumentType] -- pytest's own loose attribute
        if quiet := sorted({mark.name for mark in marks} & _QUIET_MARKS):
            raise TypeError(f"{cls.__name__} is marked {', '.join(quiet)}; use allowed_skips")


def standard_tests() -> dict[str, Any]:
    """Name → function of every test in the suite."""
    return {
        name: getattr(BackendConformance, name)
        for name in dir(BackendConformance)
        if name.startswith("test_")
    }
