"""A step's rows of logits turned into tokens and logprobs: who gets which row, and who fails alone.

Knows nothing of contexts; the sampling itself is `sampler`'s.
"""

import logging
import os
import sys
from collections.abc import Callable
from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np
from backplane_core.batching.executor import PromptScores, SampledTokens, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import BackplaneError, GenerationError

from backplane_llamacpp.logits_processors import Logits, LogitsProcessors, needs_only_argmax
from backplane_llamacpp.native import rows
from backplane_llamacpp.sampler import Mask, Sampler

_log = logging.getLogger(__name__)

Result = SampledTokens | BackplaneError | None
Made = TypeVar("Made")

# More contend for the interpreter; and a small vocabulary is not worth waking anybody.
_MAX_THREADS = 4
_WIDE = 16_384


class StepSampler:
    """For one executor. `suppressed_token_ids` never come, whatever a request asks.

    Rows are shared out among threads, which wait while the model computes: what comes of a row
    does not depend on who takes it.
    """

    def __init__(
        self, n_vocab: int, suppressed_token_ids: list[int], *, num_threads: int | None = None
    ) -> None:
        self._suppressed = suppressed_token_ids
        self._processors = LogitsProcessors(n_vocab, suppressed_token_ids)
        if num_threads is None:
            num_threads = min(_MAX_THREADS, _num_cores()) if n_vocab >= _WIDE else 1
        if (native := rows.load()) is None:
            _log.info("rows.c is not compiled: sampling does with numpy, at about twice the time")
        self._samplers = [Sampler(n_vocab, self._processors, native) for _ in range(num_threads)]
        self._helpers = ThreadPoolExecutor(max(1, num_threads - 1), thread_name_prefix="sample")

    def forget(self, seq_id: int) -> None:
        """Drop a sequence's penalty counts."""
        self._processors.forget(seq_id)

    def close(self) -> None:
        """End the threads."""
        self._helpers.shutdown()

    def sample(
        self, sequences: Items[ScheduledSequence], logits: Logits
    ) -> tuple[list[Result], dict[int, PromptScores]]:
        """Results in the order of `sequences`, and prompt scores by sequence id.

        Args:
            sequences: of one step.
            logits: a row per position that was to be scored or sampled, in the same order. May be
                written to.
        """
        scores: dict[int, PromptScores] = {}
        rows: list[int] = []  # of those to be sampled
        end = 0
        for scheduled in sequences:
            begin, end = end, end + _num_rows(scheduled)
            if scheduled.scored_positions:
                scores[scheduled.seq_id] = self._score(scheduled, logits[begin:end])
            if scheduled.sample:
                rows.append(end - 1)
        wanted = [scheduled for scheduled in sequences if scheduled.sample]
        sampled = iter(self._tokens(wanted, logits, rows))
        return [next(sampled) if one.sample else None for one in sequences], scores

    def _score(self, scheduled: ScheduledSequence, logits: Logits) -> PromptScores:
        num_top = scheduled.sequence.request.prompt_logprobs or 0
        token_ids = scheduled.scored_token_ids
        scored = self._shared_out(
            lambda sampler, place: sampler.logprobs(logits[place], token_ids[place], num_top),
            range(len(token_ids)),
        )
        logprobs = [scored[place][0] for place in range(len(token_ids))]
        top = [scored[place][1] for place in range(len(token_ids))]
        return PromptScores(logprobs, top if num_top else None)

    def _tokens(
        self, wanted: list[ScheduledSequence], logits: Logits, rows: list[int]
    ) -> list[Result]:
        if not wanted:
            return []
        plain = needs_only_argmax([scheduled.sequence for scheduled in wanted])
        if plain and (token_ids := self._argmax(logits, rows)):
            return [SampledTokens([token_id]) for token_id in token_ids]
        # Guided ones last: until their turn comes, their masks are being made.
        order = sorted(range(len(wanted)), key=lambda one: wanted[one].sequence.guide is not None)
        results = self._shared_out(
            lambda sampler, place: _token(sampler, wanted[place], logits[rows[place]]), order
        )
        return [results[place] for place in range(len(wanted))]

    def _argmax(self, logits: Logits, rows: list[int]) -> list[int]:
        """The highest of each row; none where one of them has none."""
        if self._suppressed:
            logits[np.ix_(rows, self._suppressed)] = -np.inf
        token_ids = [int(logits[row].argmax()) for row in rows]
        finite = np.isfinite(logits[rows, token_ids]).all()
        return token_ids if finite else []

    def _shared_out(
        self, task: Callable[[Sampler, int], Made], places: Items[int]
    ) -> dict[int, Made]:
        """What `task` makes of each place, whichever thread's sampler it is given."""
        left = iter(places)
        made: dict[int, Made] = {}

        def work(sampler: Sampler) -> None:
            with np.errstate(over="ignore"):  # far below the highest is far below, however far
                for place in left:  # one thread at a time takes the next
                    made[place] = task(sampler, place)

        others = self._samplers[1 : len(places)]
        helping = [self._helpers.submit(work, sampler) for sampler in others]
        try:
            work(self._samplers[0])
        finally:  # the rows are overwritten, or freed, once this returns
            wait(helping)
        for helper in helping:
            helper.result()
        return made


def _token(sampler: Sampler, scheduled: ScheduledSequence, logits: Logits) -> Result:
    sequence = scheduled.sequence
    try:
        token_id = sampler.sample(scheduled.seq_id, sequence, logits, _mask(sequence))
    except BackplaneError as error:
        return error
    except (ArithmeticError, LookupError, ValueError) as error:
        # One request's numbers must not take everybody's engine down.
        _log.exception("sampling failed for %s", sequence.request.request_id)
        return GenerationError(f"the token could not be sampled: {type(error).__name__}")
    num_top = sequence.request.top_logprobs
    if num_top is None:
        return SampledTokens([token_id])
    logprob, top = sampler.logprobs(logits, token_id, num_top)
    return SampledTokens([token_id], [logprob], [top] if num_top else None)


def _mask(sequence: Sequence) -> Mask | None:
    """What the sequence's grammar lets come; None without one."""
    return None if sequence.guide is None else np.frombuffer(sequence.guide.allowed(), np.uint8)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _num_rows(scheduled: ScheduledSequence) -> int:
    """Scored and sampled positions; the last of the chunk may be both."""
    last = scheduled.start + len(scheduled.token_ids) - 1
    return len(scheduled.scored_positions) + (
        scheduled.sample and last not in scheduled.scored_positions
    )
