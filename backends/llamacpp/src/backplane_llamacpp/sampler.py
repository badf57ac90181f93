"""`Sampler`: what a step asks of whoever turns rows of logits into tokens, compiled or numpy.

Both follow the semantics of `backplane_core.sampling`. Knows nothing of contexts or batches.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
from backplane_core.batching.executor import SampledTokens, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import BackplaneError

Logits = npt.NDArray[np.float32]
# A grammar's mask: bit `id % 8` of byte `id // 8` is that token's; whole bytes, maybe more.
Mask = npt.NDArray[np.uint8]
Result = SampledTokens | BackplaneError | None
# The log-probability of a token, and token ids with the highest ones, best first.
Score = tuple[float, list[tuple[int, float]]]


class Sampler(Protocol):
    """Keeps what a sequence's sampling needs per `seq_id`, until `forget`.

    Rows of logits may be changed meanwhile; afterwards they are as they were.
    """

    def forget(self, seq_id: int) -> None:
        """Drop what is kept of a sequence."""
        ...

    def tokens(
        self, wanted: list[ScheduledSequence], logits: Logits, places: list[int]
    ) -> list[Result]:
        """The token that follows each, from the row at its place; an error fails it alone."""
        ...

    def scores(self, logits: Logits, token_ids: list[int], num_top: int) -> list[Score]:
        """From each row, by the model's own logits, what the token of that place has."""
        ...


def mask_of(sequence: Sequence) -> Mask | None:
    """What the sequence's grammar lets come; None without one. Waits for it.

    Raises:
        BackplaneError: it cannot be told, which concerns this sequence alone.
    """
    return None if sequence.guide is None else np.frombuffer(sequence.guide.allowed(), np.uint8)
