"""`Scheduler`: which sequences compute which tokens in the next step. Policy only.

It asks a `Memory` for room and writes `Sequence.state`; it neither executes nor samples.
"""

from bisect import bisect_left, insort
from typing import Final

from backplane_core.batching.adapter_turns import AdapterSet, AdapterTurns
from backplane_core.batching.decode_batch import DecodeBatch
from backplane_core.batching.executor import (
    ExecutorTraits,
    MemoryLayout,
    ScheduledBatch,
    ScheduledSequence,
)
from backplane_core.batching.memory import Memory, held_id
from backplane_core.batching.prefill_chunk import PrefillChunk
from backplane_core.batching.request_group import RequestGroup
from backplane_core.batching.scheduler_settings import SchedulerSettings
from backplane_core.batching.sequence import Sequence, SequenceState
from backplane_core.batching.steps_at_once import StepsAtOnce
from backplane_core.batching.waiting_queue import WaitingQueue

# So much of a prefix must be on its way for a request to start a step later: less is computed
# again sooner than a step is over.
_MIN_AWAITED_TOKENS: Final = 32


def _rank(sequence: Sequence) -> tuple[float, int, int]:
    return sequence.rank


class Scheduler:
    """Decodes first, then prefill chunks in order of rank; out of memory, the last rank goes.

    The running sequence with the lowest rank is never preempted, so it ends, and so, one after
    the other, do all.
    """

    def __init__(
        self,
        traits: ExecutorTraits,
        memory: Memory,
        settings: SchedulerSettings,
        *,
        max_running: int,
    ) -> None:
        self._memory = memory
        self._settings = settings
        self._mixed = traits.mixed_prefill
        self._max_batch_tokens = traits.max_batch_tokens
        self._max_draft_tokens = traits.max_draft_tokens
        self._max_scored_tokens = traits.max_scored_tokens
        # A batch must hold all decodes and leave a token for a prefill.
        self._max_running = min(max_running, traits.max_sequences, traits.max_batch_tokens)
        self._groups: dict[str, RequestGroup] = {}
        self._waiting = WaitingQueue()
        self._prefills: list[Sequence] = []  # sorted by rank
        self._decodes = DecodeBatch()
        most = min(settings.max_prefill_chunk or traits.max_batch_tokens, traits.max_batch_tokens)
        self._chunk = PrefillChunk(most, settings.prefill_pace)
        self._steps_at_once = StepsAtOnce(traits.max_steps, settings.steps_at_once_s)
        self._reserved_decodes: list[Sequence] = []  # those in the batch, in one sum
        self._max_adapters = traits.adapters_per_batch
        self._turns = AdapterTurns(traits.adapters_per_batch)
        self._prefill_limit = traits.max_batch_tokens
        self._adapters = self._turns.choose()
        self._owed_decodes: set[str | None] = set()
        # The head of the queue, once there was no room for it: to look for its prefix again costs
        # by its length, and plain decodes only take room. Forgotten when anything else happens.
        self._refused: Sequence | None = None
        self._min_awaited_tokens = max(_MIN_AWAITED_TOKENS, traits.block_size)
        # What cannot be trimmed is shared only whole, so nothing of one that goes on otherwise.
        parts = traits.trimmable or traits.layout is MemoryLayout.PAGED
        self._awaits_prefixes = memory.shares and parts
        self.num_waiting_requests = 0
        self.num_preemptions = 0
        self.num_admitted = 0

    @property
    def num_running(self) -> int:
        """Sequences that hold memory."""
        return len(self._prefills) + len(self._decodes)

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold memory."""
        return self._decodes.sequences + self._prefills

    def add(self, group: RequestGroup) -> None:
        """Queue a request's sequences; those of a held one once it is released."""
        self._groups[group.request.request_id] = group
        self.num_waiting_requests += 1
        if not group.held:
            self.release(group)

    def release(self, group: RequestGroup) -> None:
        """A held request may start, at the place its arrival gave it."""
        for sequence in group.start(shares=self._memory.shares):
            self._waiting.push(sequence)

    def schedule(self) -> ScheduledBatch | None:
        """The next batch, with room reserved for it; None if there is nothing to do yet."""
        for _ in range(self._turns.num_candidates + 1):
            head = self._waiting.peek()
            if head is None and not self.num_running:
                return None
            self._adapters = self._turns.choose(*([head.request.adapter] if head else []))
            self._reserved_decodes = []
            scheduled, num_decodes = self._fill(self._adapters)
            if scheduled:
                names = _adapters_of(scheduled) if self._max_adapters else ()
                return ScheduledBatch(
                    sequences=scheduled,
                    adapters=names,
                    num_decodes=num_decodes,
                    num_steps=self._take_steps(num_decodes),
                )
        if not self._decodes.num_guided:
            raise AssertionError("there are sequences, but none can be scheduled")
        return None  # those there are wait for what their grammars allow, which wakes the engine

    def prefilled(self, sequence: Sequence) -> None:
        """A sequence's known tokens are all computed: from now on it decodes."""
        self._leave_prefills(sequence)
        sequence.state = SequenceState.DECODE
        self._decodes.add(sequence)
        self._release_parked(self._groups[sequence.request.request_id])

    def has_waiting_sibling(self, sequence: Sequence) -> bool:
        """Of a running sequence: whether its request has others that do not run yet."""
        group = self._groups[sequence.request.request_id]
        return group.num_unfinished > group.num_running

    def finish(self, sequence: Sequence, num_kept: int) -> None:
        """A sequence ended, for whatever reason; it may have been waiting still."""
        group = self._groups[sequence.request.request_id]
        if sequence.seq_id is not None:
            self._leave(sequence, num_kept)
        sequence.state = SequenceState.FINISHED
        group.num_unfinished -= 1
        if not group.num_unfinished:
            if not group.num_running:
                self.num_waiting_requests -= 1
            del self._groups[group.request.request_id]
        else:
            self._release_parked(group)

    def relieve(self, batch: ScheduledBatch) -> Sequence | None:
        """The executor had no memory for a batch: make the next one need less.

        Returns:
            The sequence to fail, where nothing is left to give up.
        """
        self._turns.give_back()
        self._memory.reserve_decodes([])
        for scheduled in batch.sequences:  # not all of them need be in the next one
            self._memory.reserve(scheduled.sequence, 0)
        self._refused = None
        if self._memory.drop_cached():
            return None
        if batch.num_prefill_tokens > 1:
            self._prefill_limit = batch.num_prefill_tokens // 2
            return None
        if self.num_running > 1:
            self._preempt(self._last())
            return None
        return batch.sequences[0].sequence

    def succeeded(self, batch: ScheduledBatch, step_s: float) -> int:
        """The last batch was computed; its sequences are as they were when it was scheduled.

        Args:
            batch: what `schedule` gave.
            step_s: how long each of its steps took.

        Returns:
            How many of its decodes, the first ones, the memory now has counted: all, or none
            where they may bring drafts.
        """
        self._memory.commit_decodes(self._reserved_decodes)
        if batch.num_decodes == len(batch.sequences):
            self._steps_at_once.took(step_s)
        else:
            self._chunk.took(batch.num_prefill_tokens, step_s)
        if self._max_draft_tokens or batch.num_decodes < len(batch.sequences):
            self._refused = None
        # What `relieve` took away comes back step by step.
        self._prefill_limit = min(2 * self._prefill_limit, self._max_batch_tokens)
        if not self._mixed:
            if batch.num_decodes:
                self._owed_decodes -= self._adapters.names
            else:
                self._owed_decodes |= self._adapters.names
        return len(self._reserved_decodes)

    def check_integrity(self) -> None:
        """Check the queues and the memory.

        Raises:
            AssertionError: something is lost, held twice or miscounted.
        """
        self._decodes.check_integrity()
        ranks = [sequence.rank for sequence in self._prefills]
        if ranks != sorted(set(ranks)):
            raise AssertionError("the prefills are out of order")
        if any(sequence.state is not SequenceState.PREFILL for sequence in self._prefills):
            raise AssertionError("a sequence among the prefills is in another state")
        idle = sum(not group.num_running for group in self._groups.values())
        running = sum(group.num_running for group in self._groups.values())
        if (idle, running) != (self.num_waiting_requests, self.num_running):
            raise AssertionError("waiting requests or running sequences are miscounted")
        self._memory.check_integrity(self.running)

    # ── filling a batch ──────────────────────────────────────────────────────────────────

    def _fill(self, adapters: AdapterSet) -> tuple[list[ScheduledSequence], int]:
        """The shares, and how many of them are decodes."""
        if self._mixed:
            decodes = self._schedule_decodes(adapters)
            num_tokens = len(decodes)
            if self._max_draft_tokens:
                num_tokens += sum(decode.num_draft_tokens for decode in decodes)
            return decodes + self._schedule_prefills(adapters, num_tokens), len(decodes)
        # Neither kind may go twice while the other waits, adapter by adapter: with one flag for
        # all, their turns could fall into step with it.
        if any(name in adapters.names for name in self._owed_decodes):
            if decodes := self._schedule_decodes(adapters):
                return decodes, len(decodes)
            return self._schedule_prefills(adapters, 0), 0
        if prefills := self._schedule_prefills(adapters, 0):
            return prefills, 0
        decodes = self._schedule_decodes(adapters)
        return decodes, len(decodes)

    def _schedule_decodes(self, adapters: AdapterSet) -> list[ScheduledSequence]:
        if self._max_draft_tokens:
            return self._schedule_drafts(adapters)
        while True:
            sequences, shares = self._decodes.takers(adapters)
            if self._memory.reserve_decodes(sequences):
                self._reserved_decodes = sequences
                return shares.copy()
            self._preempt(self._last())

    def _take_steps(self, num_decodes: int) -> int:
        """How many steps the batch's decodes take in a row, with room for their tokens."""
        reserved = self._reserved_decodes
        if (
            self._prefills
            or self._decodes.num_guided
            or not num_decodes == len(reserved) == len(self._decodes)
            or self._waiting.peek() is not None
        ):
            return 1
        num_steps = self._steps_at_once.number(reserved)
        if num_steps == 1:
            return 1
        # One by one from here on: the books of all at once count a token each.
        self._memory.reserve_decodes([])
        self._reserved_decodes = []
        if all(self._memory.reserve(sequence, num_steps) for sequence in reserved):
            return num_steps
        for sequence in reserved:
            self._memory.reserve(sequence, 1)
        return 1

    def _schedule_drafts(self, adapters: AdapterSet) -> list[ScheduledSequence]:
        """Decodes that may bring more than one token, each with room for its own number."""
        spare = max(0, self._max_batch_tokens - self.num_running)
        scheduled: list[ScheduledSequence] = []
        for share in list(self._decodes.takers(adapters)[1]):
            sequence = share.sequence
            if sequence.state is not SequenceState.DECODE:
                continue  # a preemption took it
            left = sequence.max_tokens - len(sequence.token_ids) - 1
            left = left if sequence.guide is None else 0
            share.num_draft_tokens = min(self._max_draft_tokens, left, spare)
            spare -= share.num_draft_tokens
            if self._make_room(sequence, 1 + share.num_draft_tokens):
                scheduled.append(share)
        return scheduled

    def _make_room(self, sequence: Sequence, num_tokens: int) -> bool:
        """Reserve for a decode, preempting from the last rank; False if it went itself."""
        while not self._memory.reserve(sequence, num_tokens):
            last = self._last()
            self._preempt(last)
            if last is sequence:
                return False
        return True

    def _schedule_prefills(self, adapters: AdapterSet, num_taken: int) -> list[ScheduledSequence]:
        budget = min(self._max_batch_tokens - num_taken, self._prefill_limit)
        if self._decodes:
            budget = min(budget, self._chunk.num_tokens)
        scheduled: list[ScheduledSequence] = []
        scorable = self._max_scored_tokens
        admitting = True
        index = 0
        while budget > 0:
            head = self._waiting.peek() if admitting else None
            if head and (index == len(self._prefills) or head.rank < self._prefills[index].rank):
                admitting = self._admit(head, adapters, scheduled)
                continue
            if index == len(self._prefills):
                break
            sequence = self._prefills[index]
            index += 1
            if not adapters.permits(sequence.request.adapter):
                continue
            num_tokens = min(budget, sequence.num_uncomputed_tokens)
            start = sequence.num_computed_tokens
            group = self._groups[sequence.request.request_id]
            num_tokens, scored = group.chunk_to_score(start, num_tokens, scorable)
            if not num_tokens:
                continue  # what it computes must be scored, and this step scores enough
            if not self._make_room_for_prefill(sequence, index, num_tokens):
                break
            budget -= num_tokens
            scorable -= len(scored)
            scheduled.append(
                ScheduledSequence(
                    seq_id=held_id(sequence),
                    sequence=sequence,
                    start=start,
                    token_ids=sequence.token_ids[start : start + num_tokens],
                    sample=num_tokens == sequence.num_uncomputed_tokens,
                    block_tables=sequence.block_tables,
                    scored_positions=scored,
                )
            )
        return scheduled

    def _make_room_for_prefill(self, sequence: Sequence, behind: int, num_tokens: int) -> bool:
        """Reserve for a chunk, preempting prefills behind it; decodes end by themselves."""
        while not self._memory.reserve(sequence, num_tokens):
            if behind == len(self._prefills):
                return False
            self._preempt(self._prefills[-1])
        return True

    def _admit(
        self, sequence: Sequence, adapters: AdapterSet, prefills: list[ScheduledSequence]
    ) -> bool:
        """Give the head of the queue its memory, if it can start now, behind these prefills."""
        if self.num_running >= self._max_running or sequence is self._refused:
            return False
        headroom = self._settings.headroom_tokens * self.num_running
        headroom += sum(prefill.num_uncomputed_tokens for prefill in self._prefills)
        if not adapters.permits(sequence.request.adapter):
            return False
        if self._awaits_prefixes and any(self._computes_for(sequence, one) for one in prefills):
            return False
        if not self._memory.admit(sequence, headroom):
            self._refused = sequence
            return False
        self._waiting.pop()
        self.num_admitted += 1
        sequence.state = SequenceState.PREFILL
        insort(self._prefills, sequence, key=_rank)
        self._turns.enter(sequence.request.adapter)
        group = self._groups[sequence.request.request_id]
        if not group.num_running:
            self.num_waiting_requests -= 1
        group.num_running += 1
        return True

    def _computes_for(self, sequence: Sequence, prefill: ScheduledSequence) -> bool:
        """Whether a chunk is what a waiting sequence would compute, too, if it started now.

        After the step it finds that in the cache. The chunk is ahead of it and in this batch, so
        there is no waiting without progress.
        """
        start, length = prefill.start, self._min_awaited_tokens
        ahead, known = prefill.sequence, sequence.token_ids
        return (
            start + length < len(known)  # the last token is computed in any case
            and ahead.prefix_salt == sequence.prefix_salt
            # Most differ here already, so that few long beginnings are compared.
            and known[start : start + length] == prefill.token_ids[:length]
            and known[:start] == ahead.token_ids[:start]
        )

    # ── leaving ──────────────────────────────────────────────────────────────────────────

    def _last(self) -> Sequence:
        queues = (self._prefills, self._decodes.sequences)
        candidates = [queue[-1] for queue in queues if queue]
        return max(candidates, key=_rank)

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the queue, at its old place; what it computed stays cached while it can."""
        self.num_preemptions += 1
        self._leave(sequence, sequence.num_computed_tokens)
        sequence.state = SequenceState.WAITING
        sequence.num_computed_tokens = 0
        self._waiting.push(sequence)

    def _leave(self, sequence: Sequence, num_kept: int) -> None:
        if sequence.state is SequenceState.PREFILL:
            self._leave_prefills(sequence)
        else:
            self._decodes.remove(sequence)
        self._memory.release(sequence, num_kept)
        self._refused = None
        self._turns.leave(sequence.request.adapter)
        group = self._groups[sequence.request.request_id]
        group.num_running -= 1
        if not group.num_running:
            self.num_waiting_requests += 1

    def _leave_prefills(self, sequence: Sequence) -> None:
        del self._prefills[bisect_left(self._prefills, sequence.rank, key=_rank)]

    def _release_parked(self, group: RequestGroup) -> None:
        for sequence in group.released():
            self._waiting.push(sequence)


def _adapters_of(scheduled: list[ScheduledSequence]) -> tuple[str, ...]:
    names = {one.sequence.request.adapter: None for one in scheduled}
    return tuple(name for name in names if name is not None)
