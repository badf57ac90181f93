"""`Executor`: the device half of a `BatchingRunner`. It computes; it decides nothing.

The scheduler hands it a `ScheduledBatch` per step and tells it, by the memory verbs, which
sequence's keys and values live, are shared, or die.
"""

import dataclasses
from abc import ABC, abstractmethod
from enum import Enum

import msgspec

from backplane_core.batching.sequence import Sequence
from backplane_core.errors import BackplaneError


class MemoryLayout(Enum):
    """How an executor keeps keys and values.

    PAGED: blocks of `block_size` tokens, any block in any sequence; sharing is by block.
    CELLS: one pool of cells, a cell per token and position, that several sequences may share
        (llama.cpp's unified cache); sharing is by `share_prefix`.
    SLOTS: `max_sequences` fixed slots of `slot_tokens` each; nothing is shared.
    """

    PAGED = "paged"
    CELLS = "cells"
    SLOTS = "slots"


class BlockGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Layers whose keys and values live equally long, and the blocks they share (PAGED only).

    A block of a group is a block in each of its layers; a sequence has one table per group.

    Attributes:
        num_blocks: how many there are, 0 … num_blocks-1.
        window: a token sees itself and the `window - 1` before it; blocks that no later token
            sees are given up when the next one is full. None sees all before it.
    """

    num_blocks: int
    window: int | None = None

    def __post_init__(self) -> None:
        """Refuse a group that holds nothing.

        Raises:
            ValueError: there are no blocks, or a token does not see itself.
        """
        if self.num_blocks < 1:
            raise ValueError(f"num_blocks of {self.num_blocks} is below 1")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window of {self.window} is below 1")


class ExecutorTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler must respect.

    Attributes:
        layout: see `MemoryLayout`.
        max_sequences: sequence ids are 0 … max_sequences-1; running and retained together.
        cache_tokens: capacity in tokens; for PAGED that of the first group, by `block_size`.
        block_size: tokens per block (PAGED); 1 otherwise.
        slot_tokens: tokens per slot (SLOTS); otherwise the longest sequence.
        max_batch_tokens: most tokens in one `execute`.
        mixed_prefill: prefill chunks and decodes may share a batch.
        trimmable: the tail of a sequence can be dropped; needed to reuse a longer one's prefix.
        shareable: `share_prefix` works (for the whole of a sequence only, where it is not
            trimmable); without it forks compute the prompt again, and only the next sequence
            of the same id reuses a prefix, by `hand_over`.
        reusable: what a sequence leaves may serve another that begins with the same tokens; without
            it (an encoder's prompt is one piece) nothing is kept once a sequence lets go of it.
        adapters_per_batch: how many distinct adapters one batch may mix, the bare model counted
            as one; 0 is no adapters.
        max_draft_tokens: draft tokens a decode may write and accept beyond its one token.
        max_steps: most steps that one `execute` takes in a row by itself, where nothing but decodes
            is to be done; see `ScheduledBatch.num_steps`. 1 is one step at a time.
        max_scored_tokens: most prompt tokens in one `execute` whose logprobs are asked for, over
            all sequences: each needs its own row of logits. 0 is no prompt logprobs.
        block_groups: where layers differ in what they see (PAGED only); the first one is what the
            usage counts. Empty is one group of all blocks, without a window; see `groups`.
    """

    layout: MemoryLayout
    max_sequences: int
    cache_tokens: int
    max_batch_tokens: int
    slot_tokens: int
    block_size: int = 1
    mixed_prefill: bool = True
    trimmable: bool = True
    shareable: bool = True
    reusable: bool = True
    adapters_per_batch: int = 0
    max_draft_tokens: int = 0
    max_steps: int = 1
    max_scored_tokens: int = 0
    block_groups: tuple[BlockGroup, ...] = ()

    def __post_init__(self) -> None:
        """Refuse groups that do not fit the rest.

        Raises:
            ValueError: a layout without blocks has groups, or the first is not `cache_tokens`.
        """
        if not self.block_groups:
            return
        if self.layout is not MemoryLayout.PAGED:
            raise ValueError(f"block_groups of a memory in {self.layout.value}")
        num_tokens = self.block_groups[0].num_blocks * self.block_size
        if num_tokens != self.cache_tokens:
            raise ValueError(
                f"cache_tokens of {self.cache_tokens} are not the {num_tokens} of the first group"
            )

    @property
    def groups(self) -> tuple[BlockGroup, ...]:
        """The `block_groups`, also where they are not spelled out (PAGED only)."""
        return self.block_groups or (BlockGroup(num_blocks=self.cache_tokens // self.block_size),)


# No Struct, as its neighbours are: two fields of each are set in every step, which costs a Struct
# a quarter of what handing out tokens takes.
@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class ScheduledSequence:
    """One sequence's share of a batch: valid until `execute` returns, and to be read only.

    That of a decoding sequence is the same object in every step, moved on by a token.

    Attributes:
        seq_id: the executor's handle, 0 … max_sequences-1, held until `release(seq_id)`.
        sequence: the live sequence, to read sampling parameters and tokens from, never to
            write. Native sampler state may be kept per `seq_id` and is void after `release`.
        start: position of the first of `token_ids`; what lies before is in the cache.
        token_ids: the tokens to compute: a prefill chunk, or the one newest token.
        sample: whether to sample the token that follows the last of these.
        block_tables: one per block group (PAGED only): physical blocks of positions
            0 … start+len(token_ids)+num_draft_tokens-1, or more; -1 for those that a window has
            left behind, which no token of this batch sees.
        num_draft_tokens: for how many draft tokens beyond `token_ids` there is room. With k
            tokens returned, those of the first k-1 stay in the cache and the executor has
            dropped what it rejected. Sequences with a guide get none.
        scored_positions: positions among those of `token_ids`, from whose logits the prompt token
            that follows is to be scored: that at p + 1 for each p. The answer, in this order, is
            `StepResult.prompt_scores[seq_id]`, with `sequence.request.prompt_logprobs`
            alternatives each. Empty where nothing is asked.
    """

    seq_id: int
    sequence: Sequence
    start: int
    token_ids: list[int]
    sample: bool
    block_tables: list[list[int]] = dataclasses.field(default_factory=list[list[int]])
    num_draft_tokens: int = 0
    scored_positions: range = range(0)

    @property
    def scored_token_ids(self) -> list[int]:
        """The prompt tokens to score, in the order of `scored_positions`."""
        positions = self.scored_positions
        return self.sequence.token_ids[positions.start + 1 : positions.stop + 1]


class ScheduledBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One engine step: decodes first, then prefill chunks.

    Attributes:
        sequences: the shares, each of another sequence.
        adapters: the names among them.
        num_decodes: how many of them, the first ones, compute their newest token alone, after
            which they sample; the others are prefill chunks.
    """

    sequences: list[ScheduledSequence]
    adapters: tuple[str, ...] = ()
    num_decodes: int = 0
    num_steps: int = 1

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return sum(len(scheduled.token_ids) for scheduled in self.sequences)

    @property
    def num_prefill_tokens(self) -> int:
        """Those among them that are of prefill chunks."""
        return sum(len(scheduled.token_ids) for scheduled in self.sequences[self.num_decodes :])


class SampledTokens(msgspec.Struct, frozen=True, gc=False):
    """What one sequence gained: one token, or several of accepted drafts or steps in a row.

    `logprobs` and `top_logprobs` are there, one entry per token, where the request asked. The
    lists are handed over: the executor neither changes them later nor gives them out again.
    """

    token_ids: list[int]
    logprobs: list[float] | None = None
    top_logprobs: list[list[tuple[int, float]]] | None = None


class PromptScores(msgspec.Struct, frozen=True, gc=False):
    """Logprobs of a chunk's `scored_token_ids`, from the model's own logits.

    `top_logprobs` holds, where alternatives were asked for (`prompt_logprobs` above 0), the
    highest `(token id, logprob)` pairs at each of these places, best first.
    """

    logprobs: list[float]
    top_logprobs: list[list[tuple[int, float]]] | None = None


class StepResult(msgspec.Struct, frozen=True, gc=False):
    """Results in the order of `ScheduledBatch.sequences`.

    Attributes:
        results: None where nothing was sampled; a `BackplaneError` fails that request alone.
        sampling_s: how much of `execute`'s time went into sampling, where that is known apart
            from computing.
        prompt_scores: by `seq_id`, for those with `scored_positions` and no error.
        num_steps: how many steps were taken in a row.
    """

    results: list[SampledTokens | BackplaneError | None]
    sampling_s: float = 0.0
    prompt_scores: dict[int, PromptScores] = {}
    num_steps: int = 1


class Executor(ABC):
    """Computes batches. Called from one thread only."""

    @property
    @abstractmethod
    def traits(self) -> ExecutorTraits:
        """Constant."""

    @abstractmethod
    def execute(self, batch: ScheduledBatch) -> StepResult:
        """Compute a batch: write keys and values at the positions given, sample where asked.

        Where the runner's capabilities name grammars and `scheduled.sequence.guide` is not None,
        the sampler keeps only the tokens of `guide.allowed()`, after the penalties and before the
        temperature; greedy sequences too, and it does not mask end tokens for `min_new_tokens`
        itself, as that mask has done so. A `BackplaneError` of `allowed()` is that sequence's
        result. Ask for it after the forward pass: until then it is being made. Logprobs that
        are reported come from the logits before any mask.

        Returns when all is computed, even where nothing is sampled: its time is what the length
        of the next chunks is taken from.

        Raises:
            OutOfMemoryError: nothing was computed; the scheduler retries with less.
            Exception: anything else means the engine is broken.
        """

    @abstractmethod
    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Let fresh sequence id `target` own the first `num_tokens` of `source`, uncopied.

        PAGED executors need do nothing: the block tables say it all.
        """

    @abstractmethod
    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Keep only the first `num_tokens` of a sequence."""

    @abstractmethod
    def release(self, seq_id: int) -> None:
        """Forget a sequence: its cache share and any sampler state. The id may be reused."""

    def hand_over(self, seq_id: int, num_tokens: int) -> None:
        """Give an id to another sequence, which keeps the first `num_tokens` in the cache.

        Only SLOTS and executors that are not shareable are asked this. `num_tokens` is the whole
        length where they are not trimmable. Override it to void sampler state of `seq_id`.
        """
        if self.traits.trimmable:
            self.trim(seq_id, num_tokens)

    def close(self) -> None:  # noqa: B027 - most executors have nothing to free
        """Free device memory."""
