"""`FakeExecutor`: an executor that computes hashes and catches every mistake of its caller.

Keys and values are chained hashes kept in modelled memory; the next token is a hash of all that a
sequence finds in its own. A wrong table, a stale trim or a missing share gives another token.
"""

import dataclasses
import itertools
from abc import abstractmethod

from backplane_core.batching.executor import (
    Executor,
    ExecutorTraits,
    PromptScores,
    SampledTokens,
    ScheduledBatch,
    ScheduledSequence,
    StepResult,
)
from backplane_core.batching.sequence import Sequence, SequenceState
from backplane_core.errors import BackplaneError, OutOfMemoryError
from backplane_core.sampling import mix64

EOS_TOKEN_ID = 0
VOCABULARY_SIZE = 96
# Printable ASCII, for grammars.
TOKENS = [b"<end>", *(bytes([byte]) for byte in range(32, 127))]


class ContractError(AssertionError):
    """The caller broke the executor's contract."""


@dataclasses.dataclass(slots=True, eq=False)
class _Sampler:
    """Native sampler state as a real executor keeps it per id: void once the id is released."""

    sequence: Sequence


def key_value(previous: int, token_id: int, adapter: str | None) -> int:
    """The content of a cell: it depends on everything before it, as keys and values do."""
    salt = sum(byte << (8 * (index % 7)) for index, byte in enumerate((adapter or "").encode()))
    return mix64(previous * 31 + token_id * 1_000_003 + salt + 1)


def key_values(token_ids: list[int], adapter: str | None) -> list[int]:
    """What the cells of these tokens must hold, computed without a cache."""
    cells: list[int] = []
    for token_id in token_ids:
        cells.append(key_value(cells[-1] if cells else 0, token_id, adapter))
    return cells


def next_token(key_values: list[int], seed: int, *, may_end: bool) -> int:
    """The token that follows. It mixes all cells, so none may be wrong."""
    mixed = seed
    for value in key_values:
        mixed = mix64(mixed ^ value)
    if may_end:
        return mixed % VOCABULARY_SIZE
    return 1 + mixed % (VOCABULARY_SIZE - 1)


def score(cells: list[int], token_id: int) -> float:
    """The logprob of a prompt token after these cells: it mixes them all, as a model does."""
    return -1 - next_token([*cells, token_id], 1, may_end=True) / 1000


def lone_scores(prompt: list[int], adapter: str | None = None) -> list[float | None]:
    """A prompt's logprobs as they must be, computed without a cache."""
    cells: list[int] = []
    scores: list[float | None] = [None]
    for token_id, following in itertools.pairwise(prompt):
        cells.append(key_value(cells[-1] if cells else 0, token_id, adapter))
        scores.append(score(cells, following))
    return scores


def lone_output(sequence: Sequence, num_tokens: int) -> list[int]:
    """The first `num_tokens` of a sequence's output as they must be, computed without a cache."""
    prompt = sequence.token_ids[: sequence.num_prompt_tokens]
    cells = key_values(prompt, sequence.request.adapter)
    output: list[int] = []
    while len(output) < num_tokens:
        may_end = len(output) >= sequence.stopping.min_new_tokens
        output.append(next_token(cells, sequence.seed, may_end=may_end))
        cells.append(key_value(cells[-1], output[-1], sequence.request.adapter))
    return output


class FakeExecutor(Executor):
    """Checks each batch, computes it in modelled memory, and counts.

    `out_of_memory` makes that many of the next batches fail; `failing` maps a request id to the
    error its next step gives.
    """

    def __init__(self, traits: ExecutorTraits) -> None:
        self._traits = traits
        self._samplers: dict[int, _Sampler] = {}
        self.batches: list[ScheduledBatch] = []
        self.out_of_memory = 0
        self.failing: dict[str, BackplaneError] = {}
        self.closed = False

    @property
    def traits(self) -> ExecutorTraits:
        """As given to the constructor."""
        return self._traits

    @abstractmethod
    def _read(self, scheduled: ScheduledSequence, token_ids: list[int]) -> list[int]:
        """The cells of these leading tokens, as this sequence sees them."""

    @abstractmethod
    def _write(self, scheduled: ScheduledSequence, position: int, value: int) -> None:
        """Fill the cell of one position."""

    @abstractmethod
    def _drop(self, scheduled: ScheduledSequence, length: int) -> None:
        """Drop rejected draft tokens from position `length` on."""

    @abstractmethod
    def _length(self, seq_id: int) -> int:
        """How many tokens a sequence id holds."""

    @abstractmethod
    def _has_room(self, batch: ScheduledBatch) -> bool:
        """Whether the batch can be written."""

    def execute(self, batch: ScheduledBatch) -> StepResult:
        """Compute a batch; see `Executor`."""
        self._check(batch)
        if self.out_of_memory:
            self.out_of_memory -= 1
            raise OutOfMemoryError("the fake device is told to be full")
        if not self._has_room(batch):
            raise OutOfMemoryError("the fake device is full")
        self.batches.append(batch)
        scores: dict[int, PromptScores] = {}
        results = [self._compute(scheduled, scores) for scheduled in batch.sequences]
        num_steps = 1
        while num_steps < batch.num_steps and all(map(_goes_on, batch.sequences, results)):
            for scheduled, result in zip(batch.sequences, results, strict=True):
                self._go_on(scheduled, result)
            num_steps += 1
        return StepResult(results, prompt_scores=scores, num_steps=num_steps)

    def release(self, seq_id: int) -> None:
        """Void the sampler; layouts free their cells, too."""
        self._samplers.pop(seq_id, None)

    def hand_over(self, seq_id: int, num_tokens: int) -> None:
        """Void the sampler, keep a prefix."""
        length = self._length(seq_id)
        if num_tokens > length or (num_tokens < length and not self._traits.trimmable):
            raise ContractError(f"{num_tokens} tokens handed over of {length}")
        self._samplers.pop(seq_id, None)
        super().hand_over(seq_id, num_tokens)

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Layouts drop cells; here only the trait is checked."""
        if not self._traits.trimmable:
            raise ContractError(f"trim({seq_id}, {num_tokens}) of an executor that cannot")

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _check(self, batch: ScheduledBatch) -> None:
        traits = self._traits
        if not batch.sequences:
            raise ContractError("an empty batch")
        ids = [scheduled.seq_id for scheduled in batch.sequences]
        if len(set(ids)) != len(ids) or not all(0 <= one < traits.max_sequences for one in ids):
            raise ContractError(f"sequence ids {ids}")
        num_tokens = batch.num_tokens + sum(one.num_draft_tokens for one in batch.sequences)
        if num_tokens > traits.max_batch_tokens:
            raise ContractError(f"{num_tokens} tokens in a batch of {traits.max_batch_tokens}")
        adapters = {scheduled.sequence.request.adapter for scheduled in batch.sequences}
        if len(adapters) > max(1, traits.adapters_per_batch):
            raise ContractError(f"adapters {adapters} in one batch")
        if set(batch.adapters) != adapters - {None}:
            raise ContractError(f"adapters {adapters} announced as {batch.adapters}")
        num_scored = sum(len(one.scored_positions) for one in batch.sequences)
        if num_scored > traits.max_scored_tokens:
            raise ContractError(f"{num_scored} tokens to score of {traits.max_scored_tokens}")
        self._check_order(batch)
        self._check_steps(batch)
        for scheduled in batch.sequences:
            self._check_sequence(scheduled)

    def _check_order(self, batch: ScheduledBatch) -> None:
        kinds = [is_decode(scheduled) for scheduled in batch.sequences]
        if kinds != sorted(kinds, reverse=True):
            raise ContractError("prefill chunks before decodes")
        if batch.num_decodes != sum(kinds):
            raise ContractError(f"{sum(kinds)} decodes announced as {batch.num_decodes}")
        if not self._traits.mixed_prefill and len(set(kinds)) > 1:
            raise ContractError("prefill and decode in one batch")

    def _check_steps(self, batch: ScheduledBatch) -> None:
        if batch.num_steps == 1:
            return
        if not 1 <= batch.num_steps <= self._traits.max_steps:
            raise ContractError(f"{batch.num_steps} steps of {self._traits.max_steps}")
        if batch.num_decodes < len(batch.sequences):
            raise ContractError("several steps with a prefill")
        for scheduled in batch.sequences:
            sequence = scheduled.sequence
            if sequence.guide is not None or scheduled.num_draft_tokens:
                raise ContractError("several steps under a grammar, or with drafts")
            if len(sequence.token_ids) + batch.num_steps > sequence.max_tokens:
                raise ContractError("more steps than a sequence may have tokens")

    def _check_sequence(self, scheduled: ScheduledSequence) -> None:
        sequence = scheduled.sequence
        end = scheduled.start + len(scheduled.token_ids)
        if not scheduled.token_ids or sequence.token_ids[scheduled.start : end] != list(
            scheduled.token_ids
        ):
            raise ContractError("the tokens to compute are not the sequence's")
        if scheduled.sample != (end == len(sequence.token_ids)):
            raise ContractError("sampling must follow the last known token, and only that")
        if sequence.guide is not None and scheduled.num_draft_tokens:
            raise ContractError("drafts are asked for under a grammar")
        if scheduled.scored_positions and not (
            scheduled.start <= scheduled.scored_positions.start
            and scheduled.scored_positions.stop <= min(end, sequence.num_prompt_tokens - 1)
        ):
            raise ContractError(f"scores of {scheduled.scored_positions} from a chunk before {end}")
        if end + scheduled.num_draft_tokens > self._traits.slot_tokens:
            raise ContractError("a sequence is longer than it may be")
        sampler = self._samplers.setdefault(scheduled.seq_id, _Sampler(sequence))
        if sampler.sequence is not sequence:
            raise ContractError(f"sequence id {scheduled.seq_id} changed hands unreleased")

    def _compute(
        self, scheduled: ScheduledSequence, scores: dict[int, PromptScores]
    ) -> SampledTokens | BackplaneError | None:
        sequence = scheduled.sequence
        error = self.failing.pop(sequence.request.request_id, None)
        if error is not None:
            return error
        cells = self._read(scheduled, sequence.token_ids[: scheduled.start])
        for offset, token_id in enumerate(scheduled.token_ids):
            self._append(scheduled, cells, scheduled.start + offset, token_id)
        if scheduled.scored_positions:
            scores[scheduled.seq_id] = _scores(scheduled, cells)
        if not scheduled.sample:
            return None
        if sequence.guide is not None:
            return _guided(scheduled, cells)
        output: list[int] = []
        num_wanted = 1 + self._num_accepted(scheduled, cells)
        while True:
            num_output = sequence.num_output_tokens + len(output)
            may_end = num_output >= sequence.stopping.min_new_tokens
            output.append(next_token(cells, sequence.seed, may_end=may_end))
            if len(output) == num_wanted:
                break
            self._append(scheduled, cells, len(cells), output[-1])
        self._reject_drafts(scheduled, cells, len(output))
        wants_logprobs = sequence.request.top_logprobs is not None
        return SampledTokens(
            output,
            logprobs=[-1.0 - token_id for token_id in output] if wants_logprobs else None,
            top_logprobs=(
                [[(token_id, -1.0 - token_id)] for token_id in output] if wants_logprobs else None
            ),
        )

    def _go_on(self, scheduled: ScheduledSequence, so_far: SampledTokens) -> None:
        """One more step, with the token sampled last."""
        sequence, output = scheduled.sequence, so_far.token_ids
        cells = self._read(scheduled, [*sequence.token_ids, *output[:-1]])
        self._append(scheduled, cells, len(cells), output[-1])
        num_output = sequence.num_output_tokens + len(output)
        may_end = num_output >= sequence.stopping.min_new_tokens
        output.append(next_token(cells, sequence.seed, may_end=may_end))
        if so_far.logprobs is not None and so_far.top_logprobs is not None:
            so_far.logprobs.append(-1.0 - output[-1])
            so_far.top_logprobs.append([(output[-1], -1.0 - output[-1])])

    def _append(
        self, scheduled: ScheduledSequence, cells: list[int], position: int, token_id: int
    ) -> None:
        adapter = scheduled.sequence.request.adapter
        cells.append(key_value(cells[-1] if cells else 0, token_id, adapter))
        self._write(scheduled, position, cells[-1])

    def _num_accepted(self, scheduled: ScheduledSequence, cells: list[int]) -> int:
        return cells[-1] % (scheduled.num_draft_tokens + 1)

    def _reject_drafts(
        self, scheduled: ScheduledSequence, cells: list[int], num_output: int
    ) -> None:
        """Write the rejected drafts as a real executor does, then drop them."""
        kept = len(cells)
        for offset in range(scheduled.num_draft_tokens - num_output + 1):
            self._write(scheduled, kept + offset, -1)
        if scheduled.num_draft_tokens:
            self._drop(scheduled, kept)


def _scores(scheduled: ScheduledSequence, cells: list[int]) -> PromptScores:
    pairs = zip(scheduled.scored_positions, scheduled.scored_token_ids, strict=True)
    logprobs = [score(cells[: position + 1], token_id) for position, token_id in pairs]
    wants_top = bool(scheduled.sequence.request.prompt_logprobs)
    tops = [[(position, -0.5)] for position in scheduled.scored_positions]
    return PromptScores(logprobs, tops if wants_top else None)


def _goes_on(scheduled: ScheduledSequence, result: SampledTokens | BackplaneError | None) -> bool:
    ends = scheduled.sequence.end_token_ids
    return isinstance(result, SampledTokens) and result.token_ids[-1] not in ends


def _guided(scheduled: ScheduledSequence, cells: list[int]) -> SampledTokens | BackplaneError:
    """A token that the grammar allows, by a hash of the cells."""
    sequence = scheduled.sequence
    try:
        mask = sequence.guide.allowed()
    except BackplaneError as error:
        return error
    allowed = [one for one in range(VOCABULARY_SIZE) if mask[one // 8] >> one % 8 & 1]
    number = sequence.seed
    for value in cells:
        number = mix64(number ^ value)
    return SampledTokens([allowed[number % len(allowed)]])


def is_decode(scheduled: ScheduledSequence) -> bool:
    """Whether it computes the newest token alone, all before it being in the cache."""
    return scheduled.sequence.state is SequenceState.DECODE
