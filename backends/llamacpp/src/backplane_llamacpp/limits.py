"""How much a model may take: context and batch sizes from its shape and the free memory.

Pure arithmetic: no llama.cpp, no files, so that every rule can be tested by numbers.
"""

import dataclasses
from collections.abc import Iterator

from backplane_core.backend import EngineSettings
from backplane_core.engine_plan import EnginePlan, counted, max_waiting_requests, scored_tokens
from backplane_core.errors import BackendError
from backplane_core.limit_flags import agreed, max_input_tokens, positive

from backplane_llamacpp.settings import LlamaCppSettings

MAX_SEQUENCES = 256

# A stream may wait so long for a chunk of others' prompts.
CHUNK_S = 0.12

# Bytes per cached number: a block of 32 has its scales with it in the quantized types.
BYTES_PER_VALUE = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}

_CELL_STEP = 256  # llama.cpp pads the attended cells to this
_DEFAULT_SEQUENCES = 64
_STATEFUL_SEQUENCES = 16
_TOKENS_PER_SEQUENCE = 2048
_CPU_BATCH, _GPU_BATCH, _UBATCH = 512, 2048, 512
_STEP_S, _LEAST_BATCH = 8.0, 16
_MEMORY_SHARE = 0.5
_BYTES_PER_RETAINED = 8192
_LEAST_RETAINED = 512
_BYTES_PER_THREAD = 16 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What of a model matters to its memory.

    Attributes:
        n_ctx_train: tokens it was trained to see at once.
        key_values, value_values: numbers cached per token over all layers.
        size_bytes: all weights.
        n_vocab: tokens in the vocabulary, and so numbers in a row of logits.
        has_state: it keeps a running state per sequence.
        rope_factor: by how much its positions are stretched; None is not at all.
    """

    n_ctx_train: int
    key_values: int
    value_values: int
    size_bytes: int
    n_vocab: int = 1
    has_state: bool = False
    rope_factor: float | None = None

    @property
    def n_ctx(self) -> int:
        """Tokens it can see at once: stretched positions reach further."""
        return int(self.n_ctx_train * (self.rope_factor or 1.0))

    @property
    def trained_on(self) -> str:
        """Where that number comes from."""
        if self.rope_factor is None:
            return f"trained on {self.n_ctx_train}"
        return f"trained on {self.n_ctx_train}, positions stretched by {self.rope_factor:g}"

    def bytes_per_token(self, type_k: str, type_v: str) -> float:
        """Cache bytes of one token."""
        keys = self.key_values * BYTES_PER_VALUE[type_k]
        return keys + self.value_values * BYTES_PER_VALUE[type_v]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(EnginePlan):
    """The sizes of a context, and what is promised of it.

    Attributes:
        ubatch_tokens: tokens computed at once.
        chunk_tokens: how much of a prompt is computed at most in a step that others wait for.
        retained_sequences, retained_tokens: kept for reuse.
        rope_factor: by how much positions are stretched; None is not at all.
        changed: a sentence for each size that was asked for and is another, with the reason.
    """

    ubatch_tokens: int
    chunk_tokens: int
    retained_sequences: int
    retained_tokens: int
    rope_factor: float | None
    changed: tuple[str, ...] = ()

    @property
    def num_sequences(self) -> int:
        """Sequence ids a context needs."""
        return self.running_sequences + self.retained_sequences


def make_plan(
    shape: ModelShape,
    free_bytes: int,
    settings: LlamaCppSettings,
    engine: EngineSettings,
) -> Plan:
    """Choose every size that was not asked for.

    Args:
        shape: the model.
        free_bytes: memory left for the cache after the weights.
        settings: the backend's own flags.
        engine: the flags common to all backends.

    Raises:
        BackendError: a flag contradicts another, the model or the memory.
    """
    running = _running_sequences(shape, settings, engine)
    per_token = max(1.0, shape.bytes_per_token(settings.type_k, settings.type_v))
    cache, cache_why = _cache_tokens(
        shape, settings, engine, free_bytes=free_bytes, per_token=per_token, running=running
    )
    total = _max_total_tokens(shape, cache, engine)
    retained = _retained_tokens(shape, cache, total, settings)
    batch = _batch_tokens(running, settings, engine)
    ubatch = min(batch, positive("--ubatch-size", settings.ubatch_size) or _UBATCH)
    retained_sequences = min(running, MAX_SEQUENCES - running) if retained else 0
    why = (
        f"context {cache} tokens ({cache_why}; {per_token / 1024:.1f} KiB per token, "
        f"{cache * per_token / 2**20:.0f} MiB), of these up to {retained} kept for reuse; "
        f"{total} tokens per sequence ({shape.trained_on}); "
        f"{counted(running, 'sequence')} at a time"
    )
    return Plan(
        cache_tokens=cache,
        max_total_tokens=total,
        max_input_tokens=max_input_tokens(total, engine),
        batch_tokens=batch,
        ubatch_tokens=ubatch,
        # More than a piece at once is no faster; smaller pieces are asked for to save memory.
        chunk_tokens=min(batch, max(ubatch, _UBATCH)),
        scored_tokens=scored_tokens(shape.n_vocab, batch),
        running_sequences=running,
        retained_sequences=retained_sequences,
        retained_tokens=retained,
        max_waiting_requests=max_waiting_requests(running, engine),
        rope_factor=shape.rope_factor,
        why=why,
        changed=tuple(_changed(cache, batch, settings, engine)),
    )


def pace(plan: Plan, tokens_per_s: float, *, batch_asked: bool) -> Plan:
    """Shorten steps on a slow machine, so that none looks hung.

    How long the streams wait for a chunk is not settled here: each chunk's own time tells how long
    the next ones are (`backplane_core.batching.prefill_chunk`).

    Args:
        plan: what the machine's speed was not known for.
        tokens_per_s: how fast a prompt is computed.
        batch_asked: the step's size was asked for, and stays.
    """
    longest = max(plan.running_sequences, _LEAST_BATCH, int(tokens_per_s * _STEP_S))
    batch = plan.batch_tokens if batch_asked else min(plan.batch_tokens, longest)
    chunk = min(plan.chunk_tokens, batch)
    why = (
        f"{plan.why}; prompts at about {tokens_per_s:.0f} tokens a second, at most {batch} per "
        f"step, while others wait {chunk} or what takes {CHUNK_S:g} s, "
        f"in pieces of {plan.ubatch_tokens}"
    )
    return dataclasses.replace(plan, batch_tokens=batch, chunk_tokens=chunk, why=why)


def num_threads(flag: str, asked: int, size_bytes: int, cpus: int) -> int:
    """Threads to compute with: with little to do for each, they would only wait for one another.

    Raises:
        BackendError: a negative number was asked for.
    """
    if asked < 0:
        raise BackendError(f"{flag} is {asked}, but must be 0 (automatic) or more")
    return asked or max(1, min(cpus, size_bytes // _BYTES_PER_THREAD))


def _running_sequences(
    shape: ModelShape, settings: LlamaCppSettings, engine: EngineSettings
) -> int:
    wanted = agreed(
        *("--max-sequences", settings.max_sequences),
        *("--max-batch-size", engine.max_batch_size),
    )
    if wanted is not None and wanted > MAX_SEQUENCES:
        raise BackendError(f"llama.cpp runs at most {MAX_SEQUENCES} sequences, not {wanted}")
    return wanted or (_STATEFUL_SEQUENCES if shape.has_state else _DEFAULT_SEQUENCES)


def _cache_tokens(
    shape: ModelShape,
    settings: LlamaCppSettings,
    engine: EngineSettings,
    *,
    free_bytes: int,
    per_token: float,
    running: int,
) -> tuple[int, str]:
    asked = agreed(
        *("--llamacpp.ctx-size", settings.ctx_size),
        *("--max-batch-total-tokens", engine.max_batch_total_tokens),
    )
    if asked is not None:
        usable = free_bytes * (engine.memory_fraction or 1.0)
        if asked * per_token > usable:
            raise BackendError(
                f"a context of {asked} tokens needs {asked * per_token / 2**30:.1f} GiB, "
                f"but {usable / 2**30:.1f} GiB are free",
                remedy="lower --max-batch-total-tokens, or use --type-k q8_0 --type-v q8_0",
            )
        return -(-asked // _CELL_STEP) * _CELL_STEP, "as asked"
    per_sequence = min(engine.max_total_tokens or shape.n_ctx, _TOKENS_PER_SEQUENCE)
    wanted = max(engine.max_total_tokens or shape.n_ctx, running * per_sequence)
    wanted = -(-wanted // _CELL_STEP) * _CELL_STEP
    share = engine.memory_fraction or _MEMORY_SHARE
    fitting = int(free_bytes * share / per_token) // _CELL_STEP * _CELL_STEP
    if fitting < _CELL_STEP:
        raise BackendError(
            f"{free_bytes / 2**20:.0f} MiB of free memory hold no context of this model, "
            f"{per_token / 1024:.1f} KiB per token",
            remedy="free memory, choose a smaller model or --type-k q8_0 --type-v q8_0",
        )
    if wanted <= fitting:
        return wanted, f"the model's length or {per_sequence} for each sequence"
    return fitting, f"{share:.0%} of {free_bytes / 2**30:.1f} GiB free memory"


def _max_total_tokens(shape: ModelShape, cache: int, engine: EngineSettings) -> int:
    asked = positive("--max-total-tokens", engine.max_total_tokens)
    if asked is None:
        return min(shape.n_ctx, cache)
    if asked > shape.n_ctx:
        raise BackendError(
            f"--max-total-tokens is {asked}, but the model was {shape.trained_on}",
            remedy="lower it, or leave it out for the most there is; --rope-factor stretches a "
            "model's positions, at some cost in quality",
        )
    if asked > cache:
        raise BackendError(
            f"--max-total-tokens is {asked}, but the context holds {cache} tokens",
            remedy="raise --max-batch-total-tokens",
        )
    return asked


def _batch_tokens(running: int, settings: LlamaCppSettings, engine: EngineSettings) -> int:
    asked = agreed(
        *("--batch-size", settings.batch_size),
        *("--max-batch-prefill-tokens", engine.max_batch_prefill_tokens),
    )
    if asked is None:
        return max(running, _GPU_BATCH if settings.n_gpu_layers else _CPU_BATCH)
    return max(running, asked)


def _changed(
    cache: int, batch: int, settings: LlamaCppSettings, engine: EngineSettings
) -> Iterator[str]:
    asked = settings.ctx_size or engine.max_batch_total_tokens
    if asked is not None and asked != cache:
        flag = "--llamacpp.ctx-size" if settings.ctx_size else "--max-batch-total-tokens"
        yield f"{flag} is {cache}, not {asked}: llama.cpp's cache grows in steps of {_CELL_STEP}"
    asked = settings.batch_size or engine.max_batch_prefill_tokens
    if asked is not None and asked != batch:
        flag = "--batch-size" if settings.batch_size else "--max-batch-prefill-tokens"
        yield (
            f"{flag} is {batch}, not {asked}: a step has room for a token of each of the {batch} "
            "sequences; --max-batch-size lowers their number"
        )


def _retained_tokens(shape: ModelShape, cache: int, total: int, settings: LlamaCppSettings) -> int:
    """How many tokens to keep for reuse.

    Every query passes over what is kept, so that may cost a small share of computing the token:
    a cell costs about as much as a few hundred bytes of weights.
    """
    if settings.retained_tokens is not None:
        if not 0 <= settings.retained_tokens <= cache:
            raise BackendError(
                f"--retained-tokens is {settings.retained_tokens}, but must lie in 0 … {cache}"
            )
        return settings.retained_tokens
    affordable = shape.size_bytes // _BYTES_PER_RETAINED
    return min(max(affordable, min(total, _LEAST_RETAINED)), cache // 2)
