"""How many sequences and tokens fit, for a model that keeps them in caches of its own.

Pure arithmetic: no torch, no model, so that every rule can be tested by numbers.
"""

import dataclasses

from backplane_core.backend import EngineSettings
from backplane_core.engine_plan import EnginePlan, counted, max_waiting_requests, scored_tokens
from backplane_core.errors import BackendError
from backplane_core.limit_flags import (
    check_cache_holds,
    max_input_tokens,
    max_total_tokens,
    positive,
)

_DEFAULT_SEQUENCES = 32
_DEFAULT_LENGTH = 4096
_TOKENS_PER_SEQUENCE = 2048
_BATCH_TOKENS = 512
_MEMORY_SHARE = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateShape:
    """What a model keeps of its sequences.

    Attributes:
        bytes_per_token: of keys and values, over all layers.
        bytes_per_sequence: of states, however many tokens it has.
        num_vocabulary: numbers in a row of logits.
        max_positions: tokens a sequence may have; None is any number.
        reusable: what a sequence leaves may serve another that begins with the same tokens.
        scores_prompts: each token of a prompt has logits.
    """

    bytes_per_token: float
    bytes_per_sequence: int
    num_vocabulary: int
    max_positions: int | None = None
    reusable: bool = True
    scores_prompts: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatePlan(EnginePlan):
    """The sizes of caches; `retained_sequences` are kept for reuse at most."""

    retained_sequences: int

    @property
    def num_sequences(self) -> int:
        """Sequences that hold memory at a time."""
        return self.running_sequences + self.retained_sequences


def make_state_plan(shape: StateShape, free_bytes: int, engine: EngineSettings) -> StatePlan:
    """Choose every size that was not asked for.

    Args:
        shape: of the model.
        free_bytes: memory left after the weights.
        engine: the flags common to all backends.

    Raises:
        BackendError: a flag contradicts another, the model or the memory.
    """
    asked = engine.max_batch_total_tokens is not None
    usable = int(free_bytes * (engine.memory_fraction or (1.0 if asked else _MEMORY_SHARE)))
    running, retained = _sequences(shape, usable, engine)
    asked_total = max_total_tokens(engine, shape.max_positions)
    longest = asked_total or shape.max_positions or _DEFAULT_LENGTH
    left = usable - _state_bytes(shape, running, retained)
    num_sequences = running + retained
    cache = _cache_tokens(shape, left, engine, num_sequences=num_sequences, longest=longest)
    check_cache_holds(asked_total, cache)
    total = min(longest, cache)
    asked_batch = positive("--max-batch-prefill-tokens", engine.max_batch_prefill_tokens)
    batch = max(running, asked_batch or _BATCH_TOKENS)
    plan = StatePlan(
        cache_tokens=cache,
        max_total_tokens=total,
        max_input_tokens=max_input_tokens(total, engine),
        batch_tokens=batch,
        scored_tokens=scored_tokens(shape.num_vocabulary, batch) if shape.scores_prompts else 0,
        running_sequences=running,
        retained_sequences=retained,
        max_waiting_requests=max_waiting_requests(running, engine),
        why="",
    )
    return dataclasses.replace(plan, why=_why(shape, plan))


def _state_bytes(shape: StateShape, running: int, retained: int) -> int:
    """Those of a step are there twice, so that one that breaks off has changed nothing."""
    return shape.bytes_per_sequence * (2 * running + retained)


def _sequences(shape: StateShape, usable: int, engine: EngineSettings) -> tuple[int, int]:
    """How many run, and how many are kept for reuse beside them."""
    asked = positive("--max-batch-size", engine.max_batch_size)
    running = asked or _DEFAULT_SEQUENCES
    if not shape.bytes_per_sequence:
        return running, running if shape.reusable else 0
    # Where there are keys and values beside the states, half is for them.
    for_states = usable // 2 if shape.bytes_per_token else usable
    if asked is None:
        running = min(running, for_states // _state_bytes(shape, 1, 0))
    if not running or _state_bytes(shape, running, 0) > usable:
        raise BackendError(
            f"{usable / 2**20:.0f} MiB are too little for {max(1, running)} sequences, each with "
            f"{shape.bytes_per_sequence / 2**20:.1f} MiB of states",
            remedy="lower --max-batch-size, free memory or raise --cuda-memory-fraction",
        )
    left = max(0, for_states - _state_bytes(shape, running, 0))
    return running, min(running, left // shape.bytes_per_sequence) if shape.reusable else 0


def _cache_tokens(
    shape: StateShape, usable: int, engine: EngineSettings, *, num_sequences: int, longest: int
) -> int:
    """Tokens of all sequences together."""
    asked = positive("--max-batch-total-tokens", engine.max_batch_total_tokens)
    wanted = max(longest, num_sequences * min(longest, _TOKENS_PER_SEQUENCE))
    if not shape.bytes_per_token:
        return asked or num_sequences * longest
    fitting = int(usable / shape.bytes_per_token)
    least = asked or 2  # a prompt of one token, and room for an answer
    if fitting < least:
        raise BackendError(
            f"{usable / 2**20:.0f} MiB are too little for a cache of {least} tokens, "
            f"each with {shape.bytes_per_token / 1024:.1f} KiB",
            remedy="lower --max-batch-total-tokens, free memory or raise --cuda-memory-fraction",
        )
    return asked or min(wanted, fitting)


def _why(shape: StateShape, plan: StatePlan) -> str:
    """One line for the log."""
    kept = [
        f"{shape.bytes_per_token / 1024:.1f} KiB per token" * bool(shape.bytes_per_token),
        f"{shape.bytes_per_sequence / 2**20:.1f} MiB per sequence" * bool(shape.bytes_per_sequence),
    ]
    return (
        f"the model's own cache: {plan.cache_tokens} tokens ({', '.join(filter(None, kept))}), "
        f"{plan.max_total_tokens} per sequence; "
        f"{counted(plan.running_sequences, 'sequence')} at a time, "
        f"{plan.retained_sequences} kept for reuse"
    )
