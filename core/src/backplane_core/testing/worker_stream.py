"""What a blocking client knows of one request: each continuation, as far as it has arrived."""

from collections import defaultdict

from backplane_core.errors import BackplaneError
from backplane_core.messages import (
    FinishReason,
    PromptLogprobs,
    SequenceDelta,
    SequenceTiming,
    Submit,
)


class Continuation:
    """One sequence of a request, as far as it has arrived. Ticks count messages received."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.top_logprobs: list[list[tuple[int, float]]] = []
        self.deltas: list[SequenceDelta] = []
        self.finish_reason: FinishReason | None = None
        self.timing: SequenceTiming | None = None
        self.first_token_tick: int | None = None
        self.finish_tick: int | None = None

    def add(self, delta: SequenceDelta, tick: int) -> None:
        """Take in what one step produced."""
        self.deltas.append(delta)
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs or []
        self.top_logprobs += delta.top_logprobs or []
        self.timing = self.timing or delta.timing
        if delta.token_ids and self.first_token_tick is None:
            self.first_token_tick = tick
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
            self.finish_tick = tick


class Stream:
    """A request and all that was said about it."""

    def __init__(self, request: Submit) -> None:
        self.request = request
        self.accepted = False
        self.error: BackplaneError | None = None
        self.continuations: defaultdict[int, Continuation] = defaultdict(Continuation)
        self.prompt_logprobs: list[PromptLogprobs] = []

    def __getitem__(self, index: int) -> Continuation:
        return self.continuations[index]

    @property
    def token_ids(self) -> list[int]:
        """The first continuation's tokens."""
        return self[0].token_ids

    @property
    def done(self) -> bool:
        """Whether it failed, or every sequence has finished."""
        return self.error is not None or all(
            self[index].finish_reason is not None for index in range(self.request.num_sequences)
        )
