"""`Memory`: what the scheduler asks of a cache, whatever its layout.

It decides who holds which part and tells the executor by the memory verbs; no policy, no device.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import NamedTuple, Protocol

from backplane_core.batching.sequence import Sequence


class MemoryVerbs(Protocol):
    """The part of `Executor` that a `Memory` speaks to."""

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """See `Executor`."""
        ...

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """See `Executor`."""
        ...

    def release(self, seq_id: int) -> None:
        """See `Executor`."""
        ...

    def hand_over(self, seq_id: int, num_tokens: int) -> None:
        """See `Executor`."""
        ...


class MemoryUsage(NamedTuple):
    """Tokens owned by running sequences, kept for reuse, and free; they sum to the capacity."""

    used: int
    cached: int
    free: int


class Retention(NamedTuple):
    """How much is kept for reuse once nobody owns it: tokens, and sequence ids where they count."""

    max_tokens: int
    max_sequences: int


def held_id(sequence: Sequence) -> int:
    """The executor's handle of a sequence that must have one."""
    if sequence.seq_id is None:
        raise AssertionError("the sequence holds no memory")
    return sequence.seq_id


class Memory(ABC):
    """Who holds which part of an executor's cache.

    `shares` says whether a sequence can take over a prefix that a running one has computed;
    `max_sequence_tokens` is the length up to which a sequence fits when it is alone.
    """

    shares: bool
    max_sequence_tokens: int

    @abstractmethod
    def admit(self, sequence: Sequence, headroom: int) -> bool:
        """Give it an id and the longest known prefix, if all its tokens and `headroom` more fit.

        Sets `seq_id`, `num_matched_tokens` and `num_computed_tokens`, which leaves at least one
        token to compute. Nothing is reserved yet.
        """

    @abstractmethod
    def reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Make room for `num_tokens` beyond the computed ones, evicting what nobody owns.

        A later call replaces an earlier one. False leaves everything as it was.
        """

    @abstractmethod
    def commit(self, sequence: Sequence, num_written: int) -> None:
        """`num_computed_tokens` grew: from now on others may share them.

        The executor wrote `num_written` tokens; what lies past the computed ones is cut off.
        """

    @abstractmethod
    def reserve_decodes(self, sequences: list[Sequence]) -> bool:
        """Make room for one token more in each of them, evicting what nobody owns.

        What an earlier call reserved, and no `commit_decodes` followed, is free again, also
        where this returns False; then nothing else has changed.
        """

    @abstractmethod
    def commit_decodes(self, sequences: list[Sequence]) -> None:
        """The token that each of those last reserved for had left is computed.

        Their `num_computed_tokens` grow by one. From now on others may share these.
        """

    @abstractmethod
    def release(self, sequence: Sequence, num_kept: int) -> None:
        """Take its id away. The first `num_kept` computed tokens stay for reuse, where possible."""

    @abstractmethod
    def drop_cached(self) -> bool:
        """Free what nobody owns, if that frees the executor's memory; whether anything was."""

    @abstractmethod
    def usage(self) -> MemoryUsage:
        """How full it is."""

    @abstractmethod
    def check_integrity(self, running: Collection[Sequence]) -> None:
        """Count everything again.

        Raises:
            AssertionError: free + cached + owned is not the capacity, or a count is wrong.
        """
