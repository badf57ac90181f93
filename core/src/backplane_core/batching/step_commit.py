"""What a step's results mean for its sequences: tokens appended, cache shared, ends found."""

import time
from collections.abc import Iterable

from backplane_core.batching.executor import SampledTokens, ScheduledSequence
from backplane_core.batching.memory import Memory
from backplane_core.batching.scheduler import Scheduler
from backplane_core.batching.sequence import Sequence, SequenceState
from backplane_core.batching.stopping import finish_reason
from backplane_core.errors import BackplaneError, GenerationError
from backplane_core.messages import SequenceDelta, SequenceTiming

Result = SampledTokens | BackplaneError | None


class Committer:
    """Applies results to sequences, memory and scheduler."""

    def __init__(self, scheduler: Scheduler, memory: Memory, *, trimmable: bool) -> None:
        self._scheduler = scheduler
        self._memory = memory
        self._trimmable = trimmable
        self._finish_s: float | None = None

    def decodes(
        self, pairs: Iterable[tuple[ScheduledSequence, Result]]
    ) -> tuple[list[SequenceDelta], list[tuple[ScheduledSequence, Result]]]:
        """Give the decodes among these that go on their token; the cache has been told.

        Returns:
            What these gained, and those with anything else to look into, untouched: an end, an
            error, a guide, accepted drafts.
        """
        # Every line here is paid for by each sequence in every step, so it calls no function of
        # ours and asks for nothing twice.
        deltas: list[SequenceDelta] = []
        others: list[tuple[ScheduledSequence, Result]] = []
        for scheduled, result in pairs:
            sequence = scheduled.sequence
            known = sequence.token_ids
            num_known = len(known)
            if (
                isinstance(result, SampledTokens)
                and len(token_ids := result.token_ids) == 1
                and (token_id := token_ids[0]) not in sequence.end_token_ids
                and num_known + 1 < sequence.max_tokens
                and sequence.guide is None
            ):
                known.append(token_id)
                scheduled.start = num_known
                scheduled.token_ids = token_ids
                deltas.append(
                    SequenceDelta(
                        sequence.request_id,
                        sequence.index,
                        token_ids,
                        result.logprobs,
                        result.top_logprobs,
                    )
                )
            else:
                others.append((scheduled, result))
        return deltas, others

    def chunk(self, scheduled: ScheduledSequence) -> None:
        """A prefill chunk was computed and more is to come."""
        sequence = scheduled.sequence
        sequence.num_computed_tokens += len(scheduled.token_ids)
        self._memory.commit(sequence, sequence.num_computed_tokens)

    def tokens(
        self,
        scheduled: ScheduledSequence,
        sampled: SampledTokens,
        now_s: float,
        num_steps: int = 1,
    ) -> SequenceDelta:
        """A sequence gained tokens, in so many steps; those past its end are dropped.

        Raises:
            GenerationError: the executor returned no token, or more than there was room for.
        """
        sequence = scheduled.sequence
        num_sampled = len(sampled.token_ids)
        most = num_steps + scheduled.num_draft_tokens
        if not 1 <= num_sampled <= most:
            raise GenerationError(
                f"the engine returned {num_sampled} tokens for a sequence, "
                f"where 1 to {most} were asked for"
            )
        num_written = scheduled.start + len(scheduled.token_ids) + num_sampled - 1
        reason = None
        num_taken = 0
        while num_taken < num_sampled and reason is None:
            sequence.token_ids.append(sampled.token_ids[num_taken])
            num_taken += 1
            reason = finish_reason(sequence)
        sequence.num_computed_tokens = len(sequence.token_ids) - 1
        timing = None if sequence.first_token_s is not None else _timing(sequence, now_s)
        self._memory.commit(sequence, num_written)
        if reason is not None:
            sequence.finish_reason = reason
            self._finish(sequence, can_keep=self._trimmable or num_taken == num_sampled)
        else:
            if sequence.guide is not None:
                sequence.guide.advance(sampled.token_ids)
            if sequence.state is SequenceState.PREFILL:
                self._scheduler.prefilled(sequence)
            else:
                scheduled.start = sequence.num_computed_tokens
                scheduled.token_ids = [sequence.token_ids[-1]]
        return SequenceDelta(
            sequence.request.request_id,
            sequence.index,
            sampled.token_ids[:num_taken],
            sampled.logprobs and sampled.logprobs[:num_taken],
            sampled.top_logprobs and sampled.top_logprobs[:num_taken],
            reason,
            timing,
        )

    def take_finish_s(self) -> float | None:
        """Seconds spent, since this was last asked, on taking out sequences; None if none ended."""
        finish_s, self._finish_s = self._finish_s, None
        return finish_s

    def _finish(self, sequence: Sequence, *, can_keep: bool) -> None:
        # Of a request that had its prompt scored only its own sequences find the prefix.
        scored = sequence.request.prompt_logprobs is not None
        can_keep = can_keep and not (scored and not self._scheduler.has_waiting_sibling(sequence))
        started_s = time.perf_counter()
        self._scheduler.finish(sequence, sequence.num_computed_tokens if can_keep else 0)
        self._finish_s = (self._finish_s or 0.0) + time.perf_counter() - started_s


def _timing(sequence: Sequence, now_s: float) -> SequenceTiming:
    sequence.first_token_s = now_s
    start_s = now_s if sequence.start_s is None else sequence.start_s
    return SequenceTiming(
        queue_s=start_s - sequence.arrival_s,
        prefill_s=now_s - start_s,
        num_prompt_tokens=sequence.num_prompt_tokens,
        num_cached_tokens=sequence.num_cached_tokens,
    )
