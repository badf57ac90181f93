"""The conformance suite: what every backend promises, tested over real sockets.

`docs/writing-a-backend.md` shows its use: subclass `BackendConformance` in five lines.
"""

from backplane_core.testing.conformance.suite import BackendConformance

__all__ = ["BackendConformance"]
