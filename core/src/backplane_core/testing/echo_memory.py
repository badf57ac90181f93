"""Echo's pretended key-value cache: counts of tokens owned, retained and free, nothing else.

Whole blocks of finished computation are remembered, so that a known prefix shows in the stats.
"""

from collections import OrderedDict
from collections.abc import Iterator

from backplane_core.messages import Submit

BLOCK_SIZE = 16


class EchoMemory:
    """`capacity` tokens. What is retained gives way to what is asked for, oldest first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._retained: OrderedDict[int, None] = OrderedDict()

    @property
    def retained(self) -> int:
        """Tokens kept for reuse."""
        return len(self._retained) * BLOCK_SIZE

    def known_prefix(self, request: Submit, token_ids: list[int]) -> int:
        """How many first tokens are retained; never all, since the last must be computed."""
        known = 0
        for key in _block_keys(request, token_ids):
            if key not in self._retained:
                break
            self._retained.move_to_end(key)
            known += BLOCK_SIZE
        return max(0, min(known, len(token_ids) - 1))

    def take(self, num_tokens: int) -> bool:
        """Own `num_tokens` more, if they can be had."""
        if self.used + num_tokens > self.capacity:
            return False
        self.used += num_tokens
        while self.used + self.retained > self.capacity:
            self._retained.popitem(last=False)
        return True

    def give(self, num_tokens: int) -> None:
        """Own `num_tokens` fewer."""
        self.used -= num_tokens

    def retain(self, request: Submit, token_ids: list[int]) -> None:
        """Remember the whole blocks of `token_ids`, as far as free room goes."""
        for key in _block_keys(request, token_ids):
            if key not in self._retained:
                if self.used + self.retained + BLOCK_SIZE > self.capacity:
                    return
                self._retained[key] = None


def _block_keys(request: Submit, token_ids: list[int]) -> Iterator[int]:
    """A key per whole block, chained, so that equal keys mean equal beginnings."""
    key = hash((request.cache_salt, request.adapter))
    for start in range(0, len(token_ids) - BLOCK_SIZE + 1, BLOCK_SIZE):
        key = hash((key, *token_ids[start : start + BLOCK_SIZE]))
        yield key
