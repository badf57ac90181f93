"""`RequestGroup`: the sequences of one request, and in which order they may start.

Where prefixes can be shared, the first sequence computes the prompt and the others wait for it,
then take over all of it but its last token, from whose logits each draws its own first token.
"""

from collections import deque

from backplane_core.batching.executor import PromptScores, ScheduledSequence
from backplane_core.batching.sequence import Sequence, SequenceState
from backplane_core.errors import GenerationError
from backplane_core.messages import PromptLogprobs, Submit


class RequestGroup:
    """One request's sequences. `num_running` of the `num_unfinished` hold memory.

    While it is `held`, its grammar is not ready and none may start. Of its prompt the logprobs of
    `num_reported_tokens` have been reported, where they are asked for.
    """

    def __init__(self, request: Submit, sequences: list[Sequence]) -> None:
        self.request = request
        self.sequences = sequences
        self.num_unfinished = len(sequences)
        self.num_running = 0
        self.held = False
        self.num_reported_tokens = 0
        self._leader = sequences[0]
        self._parked = deque(sequences[1:])

    @property
    def num_found_tokens(self) -> int:
        """Prompt tokens that were in the cache before any of the sequences came there."""
        started = (one for one in self.sequences if one.start_s is not None)
        return min((one.num_cached_tokens for one in started), default=0)

    def chunk_to_score(self, start: int, num_tokens: int, most: int) -> tuple[int, range]:
        """How much of a prefill chunk to compute, so that at most so many tokens are scored.

        Returns:
            Its tokens, and `ScheduledSequence.scored_positions`.
        """
        if self.request.prompt_logprobs is None:
            return num_tokens, range(0)
        first = max(start, self.num_reported_tokens - 1)
        end = min(start + num_tokens, self._leader.num_prompt_tokens - 1)
        if end <= first:
            return num_tokens, range(0)
        if end - first > most:
            end = first + most
            num_tokens = end - start
        return num_tokens, range(first, end)

    def report(
        self, scheduled: ScheduledSequence, scores: PromptScores | None
    ) -> PromptLogprobs | None:
        """What a computed chunk adds to the report on the prompt, each token once.

        Raises:
            GenerationError: the executor scored other tokens than it was asked to.
        """
        positions = scheduled.scored_positions
        logprobs: list[float | None] = [*scores.logprobs] if scores else []
        tops = (scores.top_logprobs if scores else None) or []
        asks_for_tops = bool(self.request.prompt_logprobs and positions)
        if len(logprobs) != len(positions) or len(tops) != len(positions) * asks_for_tops:
            raise GenerationError(
                f"the engine scored {len(logprobs)} prompt tokens where {len(positions)} were "
                "asked for"
            )
        begin = self.num_reported_tokens
        end = scheduled.start + len(scheduled.token_ids) + 1
        end = min(end, scheduled.sequence.num_prompt_tokens)
        if end <= begin:
            return None
        self.num_reported_tokens = end
        # A sibling that computes the prompt too may have been scored for some of these before.
        known = max(0, begin - positions.start - 1) if positions else 0
        first: list[float | None] = [None] if begin == 0 else []
        no_tops: list[list[tuple[int, float]]] = [[] for _ in first]
        return PromptLogprobs(
            request_id=self.request.request_id,
            start=begin,
            token_ids=scheduled.sequence.token_ids[begin:end],
            logprobs=first + logprobs[known:],
            top_logprobs=no_tops + tops[known:] if self.request.prompt_logprobs else [],
        )

    def start(self, *, shares: bool) -> list[Sequence]:
        """The sequences to queue at once. From now on it is not held."""
        self.held = False
        if not shares:
            return [self._leader, *self._unpark()]
        return self.released() if self._leader.state is SequenceState.FINISHED else [self._leader]

    def released(self) -> list[Sequence]:
        """The sequences to queue now.

        All once the leader has computed the prompt; a new leader where it was cancelled before.
        """
        if self.held:
            return []
        if self._leader.state is SequenceState.DECODE or self._leader.num_output_tokens:
            return self._unpark()
        if self._leader.state is not SequenceState.FINISHED:
            return []
        while self._parked:
            self._leader = self._parked.popleft()
            if self._leader.state is not SequenceState.FINISHED:
                return [self._leader]
        return []

    def _unpark(self) -> list[Sequence]:
        # Those cancelled meanwhile are dropped by the queue.
        sequences = list(self._parked)
        self._parked.clear()
        return sequences
