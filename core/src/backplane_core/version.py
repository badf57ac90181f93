"""The distribution's version and the version of the contract, which are not the same thing."""

from typing import NamedTuple

__version__ = "0.1.0"


class Protocol(NamedTuple):
    """Version of the backend contract and of the wire between server and worker.

    A minor step only adds fields with defaults or new messages; a major step may break.
    """

    major: int
    minor: int

    def accepts(self, other: "Protocol") -> bool:
        """Whether a peer speaking `other` can be served: majors agree, minors may differ."""
        return self.major == other.major

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PROTOCOL = Protocol(1, 0)
