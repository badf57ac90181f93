"""`Sequence`: one continuation of one prompt, and where it is in its life."""

import dataclasses
from enum import Enum

from backplane_core.guidance.guide import SequenceGuide
from backplane_core.messages import FinishReason, Submit
from backplane_core.sampling import SamplingParams, StoppingParams, sequence_seed


class SequenceState(Enum):
    """WAITING → PREFILL → DECODE → FINISHED; preemption goes back to WAITING."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One continuation of one prompt. The scheduler writes it, executors read it.

    Attributes:
        request: the request it answers; `index` says which of its continuations it is.
        token_ids: prompt and output together; position i of the cache holds `token_ids[i]`.
        num_prompt_tokens: how many of these are the prompt.
        num_computed_tokens: how many have keys and values in the cache.
        seq_id: the executor's handle while it holds cache; None while waiting.
        num_cached_tokens: of its prompt, those found in the cache when it first started.
        num_matched_tokens: those found in the cache at its present stay there.
        block_tables: physical blocks, a table per block group (paged memory only).
        block_hashes: of the leading full blocks, as far as they were needed (paged memory only).
        guide: what its grammar allows next, where the request has one.
        prefix_salt: sequences share cached prefixes only under equal salts.
        rank: place in the queue, lower first: aged arrival, number of the request, index.
        arrival_s, start_s, first_token_s: monotonic seconds.
        request_id, sampling, stopping: the request's own; use `seed`, not the sampling's.
        seed: this continuation's own.
        end_token_ids: tokens that end it, where it has no guide.
        max_tokens: how many `token_ids` there will be at most.
    """

    request: Submit
    index: int
    token_ids: list[int]
    num_prompt_tokens: int
    eos_token_ids: frozenset[int]
    state: SequenceState = SequenceState.WAITING
    seq_id: int | None = None
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    num_matched_tokens: int = 0
    block_tables: list[list[int]] = dataclasses.field(default_factory=list[list[int]])
    block_hashes: list[bytes] = dataclasses.field(default_factory=list[bytes])
    guide: SequenceGuide | None = None
    prefix_salt: bytes = b""
    rank: tuple[float, int, int] = (0.0, 0, 0)
    finish_reason: FinishReason | None = None
    arrival_s: float = 0.0
    start_s: float | None = None
    first_token_s: float | None = None
    # Read for every token, so they are not asked for through the request each time.
    request_id: str = dataclasses.field(init=False)
    sampling: SamplingParams = dataclasses.field(init=False)
    stopping: StoppingParams = dataclasses.field(init=False)
    seed: int = dataclasses.field(init=False)
    end_token_ids: frozenset[int] = dataclasses.field(init=False)
    max_tokens: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Note what a step asks of the request."""
        request = self.request
        stopping = request.stopping
        self.request_id = request.request_id
        self.sampling = request.sampling
        self.stopping = stopping
        self.seed = sequence_seed(request.sampling.seed, self.index)
        ends = frozenset[int]() if stopping.ignore_eos else self.eos_token_ids
        self.end_token_ids = ends.union(stopping.stop_token_ids)
        self.max_tokens = self.num_prompt_tokens + stopping.max_new_tokens

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens whose keys and values are not in the cache yet; 1 in steady decode."""
        return len(self.token_ids) - self.num_computed_tokens
