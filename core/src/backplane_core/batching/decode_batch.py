"""`DecodeBatch`: the sequences that decode, each with its share of the next step's batch.

A share lives as long as its sequence decodes, so that a step pays for what changed, not for all.
"""

from bisect import bisect_left

from backplane_core.batching.adapter_turns import AdapterSet
from backplane_core.batching.executor import ScheduledSequence
from backplane_core.batching.memory import held_id
from backplane_core.batching.sequence import Sequence, SequenceState


class DecodeBatch:
    """`sequences` and their `shares`, both sorted by rank; `num_guided` have a grammar.

    To be read; `add` and `remove` write.
    """

    def __init__(self) -> None:
        self.sequences: list[Sequence] = []
        self.shares: list[ScheduledSequence] = []
        self.num_guided = 0

    def __len__(self) -> int:
        return len(self.sequences)

    def add(self, sequence: Sequence) -> None:
        """A sequence whose tokens are computed but for the newest."""
        index = self._index(sequence)
        self.sequences.insert(index, sequence)
        self.shares.insert(index, _share(sequence))
        self.num_guided += sequence.guide is not None

    def remove(self, sequence: Sequence) -> None:
        """Let a sequence go."""
        index = self._index(sequence)
        del self.sequences[index]
        del self.shares[index]
        self.num_guided -= sequence.guide is not None

    def takers(self, adapters: AdapterSet) -> tuple[list[Sequence], list[ScheduledSequence]]:
        """Who may be in the next step, and their shares; not to be written."""
        if adapters.complete and not self.num_guided:
            return self.sequences, self.shares
        shares = [
            share
            for share in self.shares
            if adapters.permits(share.sequence.request.adapter) and _may_take_turn(share.sequence)
        ]
        return [share.sequence for share in shares], shares

    def check_integrity(self) -> None:
        """Make it anew and compare.

        Raises:
            AssertionError: a share is not what its sequence asks for, or the order is wrong.
        """
        ranks = [sequence.rank for sequence in self.sequences]
        if ranks != sorted(set(ranks)):
            raise AssertionError("the decodes are out of order")
        if any(sequence.state is not SequenceState.DECODE for sequence in self.sequences):
            raise AssertionError("a sequence among the decodes is in another state")
        if self.num_guided != sum(one.guide is not None for one in self.sequences):
            raise AssertionError("the guided decodes are miscounted")
        for share, sequence in zip(self.shares, self.sequences, strict=True):
            made, kept = _share(sequence), share
            if kept.block_tables is not made.block_tables or kept.sequence is not sequence:
                raise AssertionError("a decode's share is another sequence's")
            for name in ("seq_id", "start", "token_ids", "sample", "scored_positions"):
                if getattr(kept, name) != getattr(made, name):
                    raise AssertionError(f"{name} of a decode is {getattr(kept, name)}")

    def _index(self, sequence: Sequence) -> int:
        return bisect_left(self.sequences, sequence.rank, key=_rank)


def _rank(sequence: Sequence) -> tuple[float, int, int]:
    return sequence.rank


def _may_take_turn(sequence: Sequence) -> bool:
    """Whether a step need not wait for its grammar; see `SequenceGuide`."""
    return sequence.guide is None or sequence.guide.may_take_turn


def _share(sequence: Sequence) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=held_id(sequence),
        sequence=sequence,
        start=sequence.num_computed_tokens,
        token_ids=[sequence.token_ids[-1]],
        sample=True,
        block_tables=sequence.block_tables,
    )
