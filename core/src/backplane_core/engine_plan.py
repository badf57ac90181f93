"""`EnginePlan`: the sizes that an engine settles on before it serves. Backends add their own."""

import dataclasses
from typing import Final

from backplane_core.backend import EngineSettings
from backplane_core.capabilities import Limits

_SCORED_BYTES: Final = 64 * 2**20
_BYTES_PER_LOGIT: Final = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """Sizes in tokens, sequences and requests, and what servers are told of them.

    Attributes:
        cache_tokens: tokens of all sequences together.
        max_total_tokens: prompt plus new tokens of one sequence.
        max_input_tokens: prompt tokens of one sequence.
        batch_tokens: tokens computed in one step.
        scored_tokens: for how many of a prompt's tokens one step can tell logprobs.
        running_sequences: sequences that run at a time.
        max_waiting_requests: requests that may wait beyond those.
        why: in a sentence, what was chosen and from what.
    """

    cache_tokens: int
    max_total_tokens: int
    max_input_tokens: int
    batch_tokens: int
    scored_tokens: int
    running_sequences: int
    max_waiting_requests: int
    why: str

    @property
    def limits(self) -> Limits:
        """What servers are told."""
        return Limits(
            max_total_tokens=self.max_total_tokens,
            max_input_tokens=self.max_input_tokens,
            max_batch_tokens=self.batch_tokens,
            max_sequences=self.running_sequences,
            max_waiting_requests=self.max_waiting_requests,
            cache_tokens=self.cache_tokens,
        )


def counted(number: int, noun: str) -> str:
    """So many of something, for `why`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def scored_tokens(num_vocabulary: int, batch_tokens: int) -> int:
    """For how many tokens a step makes room for logits, beside those that are sampled from."""
    return max(1, min(batch_tokens, _SCORED_BYTES // (_BYTES_PER_LOGIT * num_vocabulary)))


def max_waiting_requests(running_sequences: int, engine: EngineSettings) -> int:
    """Of the requests that are taken at a time, those that do not run."""
    return max(0, engine.max_concurrent_requests - running_sequences)
