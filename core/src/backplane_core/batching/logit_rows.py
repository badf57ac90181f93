"""Which positions of a step get a row of logits, in which order, and whose each row is.

Model and sampler agree on it: a row per scored position, then the last one's, if it is sampled.
"""

from collections.abc import Iterable

import msgspec

from backplane_core.batching.executor import ScheduledSequence


class LogitRows(msgspec.Struct, frozen=True, gc=False):
    """A step's rows, by what they are for; one may be for both.

    Attributes:
        sampled: the row to sample from, for each sequence that samples, in their order.
        scored: sequences with scored positions, and the first of their rows; the others follow it.
    """

    sampled: list[int]
    scored: list[tuple[ScheduledSequence, int]]


def logit_offsets(scheduled: ScheduledSequence) -> list[int]:
    """Which of a sequence's `token_ids` get a row: ascending indices into them."""
    last = len(scheduled.token_ids) - 1
    scored = scheduled.scored_positions
    offsets = [position - scheduled.start for position in scored]
    if scheduled.sample and (not offsets or offsets[-1] != last):
        offsets.append(last)
    return offsets


def num_logit_rows(scheduled: ScheduledSequence) -> int:
    """How many of a sequence's positions get a row."""
    scored = scheduled.scored_positions
    if not scored:
        return int(scheduled.sample)
    last = scheduled.start + len(scheduled.token_ids) - 1
    return len(scored) + (scheduled.sample and scored[-1] != last)


def assign_logit_rows(sequences: Iterable[ScheduledSequence]) -> LogitRows:
    """Whose each row of a step is, where the sequences' rows follow one another."""
    rows = LogitRows([], [])
    end = 0
    for scheduled in sequences:
        if scheduled.scored_positions:
            rows.scored.append((scheduled, end))
        end += num_logit_rows(scheduled)
        if scheduled.sample:
            rows.sampled.append(end - 1)
    return rows
