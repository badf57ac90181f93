"""What came back to one request: when, how many tokens, and what went wrong if anything did."""

from array import array
from dataclasses import dataclass, field
from typing import Final

OK: Final = 200
# Kinds of failure beside "status 4xx" and the like.
CONNECT: Final = "connect"
CUT: Final = "cut"
TIMEOUT: Final = "timeout"
GARBAGE: Final = "garbage"
REFUSED_IN_STREAM: Final = "error in stream"


@dataclass(slots=True)
class Reply:
    """Times are seconds of `time.perf_counter`.

    Attributes:
        started: when the request was due.
        turn: which of its conversation's it is, from 1 on.
        ended: when its answer was whole, or given up.
        arrivals: when each event with something for the reader came.
        texts: what those events said.
        num_prompt: prompt tokens, as the server counted them; likewise the next two.
        num_cached: those of them that it did not compute.
        num_output: new tokens.
        finished: whether the answer said that it is whole.
        failure: kind of failure; empty for none.
        message: what the server or the system said of it.
    """

    started: float
    turn: int = 1
    ended: float = 0.0
    status: int = 0
    arrivals: "array[float]" = field(default_factory=lambda: array("d"))
    texts: list[str] = field(default_factory=list[str])
    num_prompt: int | None = None
    num_cached: int | None = None
    num_output: int | None = None
    finished: bool = False
    failure: str = ""
    message: str = ""

    def arrived(self, now: float, text: str) -> None:
        """An event for the reader."""
        self.arrivals.append(now)
        self.texts.append(text)

    def fail(self, kind: str, message: str = "") -> None:
        """Note the first thing that went wrong."""
        if not self.failure:
            self.failure, self.message = kind, message

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(self.texts)

    @property
    def num_tokens(self) -> int:
        """New tokens by the server's count, else the events that came."""
        return len(self.arrivals) if self.num_output is None else self.num_output

    @property
    def ttft(self) -> float | None:
        """Seconds to the first text; to the end, for an answer whose tokens have none."""
        if self.arrivals:
            return self.arrivals[0] - self.started
        return self.ended - self.started if self.num_tokens else None

    @property
    def tpot(self) -> float | None:
        """Seconds a token from the first event to the last; None for fewer than two of each."""
        if len(self.arrivals) < 2 or self.num_tokens < 2:  # noqa: PLR2004 - two ends of a time
            return None
        return (self.arrivals[-1] - self.arrivals[0]) / (self.num_tokens - 1)

    @property
    def e2e(self) -> float:
        """Seconds to the end."""
        return self.ended - self.started
