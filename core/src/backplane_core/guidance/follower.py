"""`Follower`: a matcher and the tokens it has consumed; masks that know when an end may come.

For one thread at a time. Knows nothing of pools and budgets.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from backplane_core.errors import GenerationError
from backplane_core.guidance.trouble import TOO_COMPLEX, trouble_of
from backplane_core.sampling import StoppingParams

if TYPE_CHECKING:
    from llguidance import LLMatcher

_log = logging.getLogger(__name__)


class EndRule:
    """Which tokens end a sequence, and until when they may not.

    Under `ignore_eos` or before `min_new_tokens` ends are taken out of a mask as long as that
    leaves anything.
    """

    def __init__(self, stopping: StoppingParams, eos_token_ids: Iterable[int]) -> None:
        self._min_new_tokens = stopping.min_new_tokens
        self._ignore_eos = stopping.ignore_eos
        self._eos_token_ids = frozenset(eos_token_ids)
        self._end_token_ids = self._eos_token_ids | frozenset(stopping.stop_token_ids)

    def applied(self, mask: bytes, num_tokens: int) -> bytes:
        """The mask of what may follow so many tokens."""
        if num_tokens < self._min_new_tokens:
            forbidden = self._end_token_ids
        elif self._ignore_eos:
            forbidden = self._eos_token_ids
        else:
            return mask
        rest = bytearray(mask)
        for token_id in forbidden:
            rest[token_id // 8] &= ~(1 << token_id % 8)
        return bytes(rest) if any(rest) else mask


class Follower:
    """One sequence's place in its grammar.

    Copies of a matcher share what its lexer has found out, and with it the limit on lexer states:
    what others have used up of it must not end this sequence. So once the limit is met,
    `renewed` compiles the grammar again, for this sequence alone, which takes its tokens in
    again; within `replay_s` seconds, as the limit may have been its own doing.
    """

    def __init__(
        self,
        matcher: "LLMatcher",
        renewed: "Callable[[], LLMatcher]",
        end_rule: EndRule,
        *,
        replay_s: float,
    ) -> None:
        self._matcher = matcher
        self._renewed = renewed
        self._end_rule = end_rule
        self._replay_s = replay_s
        self._shares = True
        self._token_ids: list[int] = []

    def follow(self, token_ids: Iterable[int]) -> bytes:
        """Take in tokens; the mask of what may come next.

        Raises:
            GenerationError: the grammar does not allow one of them, or is too complex.
        """
        new = list(token_ids)
        self._token_ids += new
        mask = self._advanced(new)
        if mask is None and self._shares and trouble_of(self._matcher) == TOO_COMPLEX:
            mask = self._again()
        if mask is None:
            _log.warning("a grammar could not be followed: %s", self._matcher.get_error())
            raise GenerationError(
                f"the grammar could not be followed: {trouble_of(self._matcher)}",
                remedy="use a simpler grammar",
            )
        return self._end_rule.applied(mask, len(self._token_ids))

    def _advanced(self, token_ids: list[int]) -> bytes | None:
        if token_ids and not self._matcher.consume_tokens(token_ids):
            return None
        mask = self._matcher.compute_bitmask()
        # In trouble it allows the end, as if the text were whole.
        return None if self._matcher.is_error() else mask

    def _again(self) -> bytes | None:
        until_s = time.monotonic() + self._replay_s
        spent = self._matcher
        self._shares = False
        self._matcher = self._renewed()
        for token_id in self._token_ids:
            if time.monotonic() > until_s or not self._matcher.consume_token(token_id):
                self._matcher = spent
                return None
        return self._advanced([])
