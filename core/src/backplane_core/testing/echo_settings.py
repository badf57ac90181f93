"""The echo backend's settings: pace, size, and faults on demand."""

import dataclasses

from backplane_core.backend import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class EchoSettings:
    """Faults strike a request whose prompt holds the text, after its first token."""

    step_seconds: float = setting(0.0, "seconds from one step to the next: a token per stream")
    max_sequences: int = setting(256, "sequences that run at a time")
    max_waiting_requests: int = setting(1024, "requests that may wait beyond those")
    load_seconds: float = setting(0.0, "how long loading is to take, with progress")
    vocabulary_size: int = setting(260, "token ids, the last ones being fillers")
    cache_tokens: int | None = setting(None, "tokens the pretended cache holds")
    load_error: str = setting("", "fail loading with this text")
    crash_on: str = setting("", "the process kills itself, as a segfault would")
    hang_on: str = setting("", "the engine stands still for good")
    raise_on: str = setting("", "the engine breaks with an exception")
    fail_on: str = setting("", "that one request fails with a typed error")

    @property
    def has_faults(self) -> bool:
        """Whether any fault is armed."""
        return bool(self.crash_on or self.hang_on or self.raise_on or self.fail_on)
