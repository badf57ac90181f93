"""`SchedulerSettings`: what of the scheduling can be tuned."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefillPace:
    """How long sequences that decode wait for a chunk of others' prompts.

    Attributes:
        chunk_s: so many seconds at most, as far as the last chunks tell what this one takes; well
            above what a step takes however few its tokens, or chunks get as short as there are.
        tokens_per_s: how fast prompts are computed, as long as no chunk has told.
    """

    chunk_s: float
    tokens_per_s: float

    def __post_init__(self) -> None:
        """Refuse what no chunk fits."""
        if not self.chunk_s > 0:
            raise ValueError(f"chunk_s of {self.chunk_s} is not above 0")
        if not self.tokens_per_s > 0:
            raise ValueError(f"tokens_per_s of {self.tokens_per_s} is not above 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """What an operator may tune.

    Attributes:
        max_prefill_chunk: prefill tokens of a step while sequences decode, so that no decode
            waits longer than for one such chunk; None is as many as the batch holds.
        prefill_pace: makes such chunks shorter where they take long; None leaves them at that.
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
    prefill_pace: PrefillPace | None = None
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
