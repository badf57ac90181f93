"""How often a worker tells of tokens: steps that come faster than anybody reads share a message."""

import time
from collections.abc import Callable
from typing import Final

from backplane_core.messages import SequenceDelta, StepOutput

TELL_EVERY_S: Final = 0.01


class Pacer:
    """Passes steps on, at most one message per `TELL_EVERY_S` while nothing but tokens come.

    Each message costs the server and the client a wake-up, on a small machine taken from the
    engine's own cores: of a step of a few milliseconds that is a noticeable part. First and last
    tokens, failures and prompt logprobs never wait, and nothing waits while steps are long. Whoever
    drives the engine calls `flush` before anything that may make the next step a long one.
    """

    def __init__(
        self, tell: Callable[[StepOutput], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._told_s = float("-inf")
        self._held: list[SequenceDelta] = []

    def take(self, output: StepOutput) -> None:
        """A step's output, empty where it had none."""
        if not (output.deltas or output.failures or output.prompt_logprobs):
            self.flush()
            return
        now_s = self._clock()
        if now_s - self._told_s < TELL_EVERY_S and _can_wait(output):
            self._held += output.deltas
            return
        if self._held:
            deltas = self._held + output.deltas
            output = StepOutput(
                deltas=deltas, failures=output.failures, prompt_logprobs=output.prompt_logprobs
            )
            self._held = []
        self._told_s = now_s
        self._tell(output)

    def flush(self) -> None:
        """Tell what is held."""
        if self._held:
            held, self._held = self._held, []
            self._told_s = self._clock()
            self._tell(StepOutput(deltas=held))


def _can_wait(output: StepOutput) -> bool:
    if output.failures or output.prompt_logprobs:
        return False
    return all(delta.finish_reason is None and delta.timing is None for delta in output.deltas)
