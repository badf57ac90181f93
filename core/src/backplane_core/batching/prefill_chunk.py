"""`PrefillChunk`: how many prompt tokens a step has that decoding sequences wait for.

As many as lately took the time they may take. Knows nothing of sequences.
"""

from collections import deque
from statistics import median
from typing import Final

from backplane_core.batching.scheduler_settings import PrefillPace

# Rows are computed by so many at least, and where even these are slow, prompts still get on.
_TOKEN_STEP: Final = 32
_LEAST_TOKENS: Final = 16
_WEIGHT: Final = 0.5


class PrefillChunk:
    """`num_tokens`, from 16 (or `max_tokens`) to `max_tokens`: those that fill `pace.chunk_s`.

    What a token takes is the median of the last three chunks, smoothed exponentially, and no less
    than in both of the last two: one that was slow or fast by accident changes nothing, what gets
    slower counts in full with the second chunk, and what gets faster by half with each, from the
    second on. So it follows a prompt to where its attention has more to read, and a machine
    that something else keeps busy. Without a pace it is always `max_tokens`.
    """

    def __init__(self, max_tokens: int, pace: PrefillPace | None) -> None:
        self._max_tokens = max_tokens
        self._pace = pace
        self._token_s: float = 1 / pace.tokens_per_s if pace else 0.0
        self._last_s = deque([self._token_s] * 3, maxlen=3)
        self.num_tokens = self._fitting()

    def took(self, num_tokens: int, step_s: float) -> None:
        """A step with so many prefill tokens took so long, whatever else was in it.

        Of fewer tokens than half a chunk each takes longer, by what a step costs at least, so they
        tell nothing of one, except where even they took too long: then a whole one would as well.
        """
        if self._pace is None:
            return
        if 2 * num_tokens < self.num_tokens:
            if step_s <= self._pace.chunk_s:
                return
            num_tokens = self.num_tokens
        self._last_s.append(step_s / num_tokens)
        self._token_s += _WEIGHT * (median(self._last_s) - self._token_s)
        # Streams wait for a chunk that is too long, so what gets slower counts in full.
        self._token_s = max(self._token_s, min(self._last_s[-1], self._last_s[-2]))
        self.num_tokens = self._fitting()

    def _fitting(self) -> int:
        if self._pace is None or self._token_s * self._max_tokens <= self._pace.chunk_s:
            return self._max_tokens
        fitting = int(self._pace.chunk_s / self._token_s)
        if fitting > _TOKEN_STEP:
            fitting -= fitting % _TOKEN_STEP
        return min(self._max_tokens, max(_LEAST_TOKENS, fitting))
