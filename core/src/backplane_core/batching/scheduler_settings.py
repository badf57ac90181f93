"""`SchedulerSettings`: what of the scheduling can be tuned."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """What an operator may tune.

    Attributes:
        max_prefill_chunk: prefill tokens of a step while sequences decode, so that no decode
            waits longer than for one such chunk; None is as many as the batch holds.
        priority_aging_s: a waiting request gains one step of priority in so many seconds, so
            that none waits forever behind more urgent ones.
        headroom_tokens: what is left free per running sequence when another is admitted, so
            that it need not be preempted a few steps later.
        max_retained_tokens: cache tokens kept for reuse; None is all that are not in use.
        max_retained_sequences: sequence ids kept for reuse, where the layout keeps whole
            sequences; None is all that are not in use.
        steps_at_once_s: about so much time is filled with decode steps in a row, where the executor
            can and nobody waits; who comes meanwhile waits so much longer. 0 is one by one.
    """

    max_prefill_chunk: int | None = None
    priority_aging_s: float = 10.0
    headroom_tokens: int = 16
    max_retained_tokens: int | None = None
    max_retained_sequences: int | None = None
    steps_at_once_s: float = 0.03

    def __post_init__(self) -> None:
        """Refuse what would stall: a chunk of nothing, or waiting that makes later."""
        if self.max_prefill_chunk is not None and self.max_prefill_chunk < 1:
            raise ValueError(f"max_prefill_chunk of {self.max_prefill_chunk} is below 1")
        if self.priority_aging_s <= 0:
            raise ValueError(f"priority_aging_s of {self.priority_aging_s} is not above 0")
        if self.headroom_tokens < 0:
            raise ValueError(f"headroom_tokens of {self.headroom_tokens} is below 0")
        if self.steps_at_once_s < 0:
            raise ValueError(f"steps_at_once_s of {self.steps_at_once_s} is below 0")
