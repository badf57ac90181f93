"""From settings to a loaded model and its context. What cannot be honoured is refused here."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from backplane_core.backend import ProgressSink
from backplane_core.errors import BackendError, ModelError
from backplane_core.host_memory import available_bytes

from backplane_llamacpp.gguf_file import check_file
from backplane_llamacpp.limits import ModelShape, Plan, num_threads
from backplane_llamacpp.native import enums, log
from backplane_llamacpp.native.context import ContextOptions, NativeContext, TokenBatch
from backplane_llamacpp.native.devices import native_devices
from backplane_llamacpp.native.model import (
    LoadOptions,
    NativeModel,
    start,
    supports_gpu_offload,
    supports_mlock,
)
from backplane_llamacpp.settings import LlamaCppSettings

_log = logging.getLogger(__name__)

_REPORT_STEP = 0.02
# A first prompt is short, since a large model takes seconds for it; a second one is as long as is
# computed in this time, for short prompts are slower by half.
_TIMED_TOKENS, _MOST_TIMED_TOKENS, _TIMED_S = 32, 256, 0.15


def load_options(settings: LlamaCppSettings) -> LoadOptions:
    """Flags about devices and memory as llama.cpp takes them.

    Raises:
        BackendError: this build or this machine cannot honour one.
    """
    if settings.defrag_threshold >= 0:
        raise BackendError(
            f"--defrag-threshold {settings.defrag_threshold}: this llama.cpp has no "
            "defragmentation any more",
            remedy="leave it out",
        )
    if settings.numa not in enums.NUMA_STRATEGIES:
        raise BackendError(
            f"--numa {settings.numa}: llama.cpp knows the name but does nothing for it",
            remedy=f"use one of {', '.join(enums.NUMA_STRATEGIES)}",
        )
    if settings.use_mlock and not supports_mlock():
        raise BackendError("--use-mlock: this system cannot lock memory")
    if settings.n_gpu_layers and not supports_gpu_offload():
        raise BackendError(
            f"--n-gpu-layers {settings.n_gpu_layers}, but the installed llama.cpp sees no GPU",
            remedy="install llama-cpp-python built for the GPU (CMAKE_ARGS=-DGGML_CUDA=on)",
        )
    split_mode, main_gpu = _split(settings)
    return LoadOptions(
        n_gpu_layers=settings.n_gpu_layers,
        split_mode=split_mode,
        main_gpu=main_gpu,
        load_mode=enums.load_mode(mmap=not settings.disable_mmap, mlock=settings.use_mlock),
    )


def _split(settings: LlamaCppSettings) -> tuple[int, int]:
    mode = settings.split_mode
    if mode != "layer" and not settings.n_gpu_layers:
        raise BackendError(f"--split-mode {mode} splits over GPUs, but none is used")
    if mode.isdigit():
        num_gpus = sum(device.kind == "gpu" for device in native_devices())
        if int(mode) >= num_gpus:
            raise BackendError(f"--split-mode {mode}: there are {num_gpus} GPUs, counted from 0")
        return enums.SPLIT_MODES["none"], int(mode)
    if mode not in {"layer", "row", "tensor"}:
        raise BackendError(f"--split-mode {mode} is none of layer, row, tensor or a GPU's number")
    return enums.SPLIT_MODES[mode], 0


def load_model(path: Path, settings: LlamaCppSettings, progress: ProgressSink) -> NativeModel:
    """Load a GGUF (the first part of a split one), reporting the stage "load".

    Raises:
        ModelError: the file is missing, broken, or not a model that continues text.
        BackendError: a setting cannot be honoured.
    """
    check_file(path)
    options = load_options(settings)
    start(enums.NUMA_STRATEGIES[settings.numa])
    model = NativeModel(path, options, _reporter(path, progress))
    try:
        _check_locked(settings)
        _check_generates(model, path)
    except BaseException:
        model.close()
        raise
    return model


def _reporter(path: Path, progress: ProgressSink) -> Callable[[float], None]:
    last = -1.0

    def report(fraction: float) -> None:
        nonlocal last
        if fraction >= last + _REPORT_STEP or fraction >= 1.0 > last:
            last = fraction
            progress("load", min(fraction, 1.0), path.name)

    return report


def _check_locked(settings: LlamaCppSettings) -> None:
    refused = [line for line in log.complaints() if "mlock" in line]
    if settings.use_mlock and refused:
        raise BackendError(
            f"--use-mlock: the system refused to lock the weights ({refused[0]})",
            remedy="raise the limit (ulimit -l unlimited), or leave the flag out",
        )


def _check_generates(model: NativeModel, path: Path) -> None:
    if not model.generates:
        raise ModelError(
            f"{path} is a model that does not continue text (an encoder, an embedding or a "
            "diffusion model)",
            remedy="choose a decoder model",
        )
    if model.n_vocab == 0 or model.vocabulary_type == 0:
        raise ModelError(f"{path} holds no tokenizer", remedy="convert the model again, with it")


def free_bytes(model: NativeModel, settings: LlamaCppSettings) -> int:
    """Memory left for a cache: of the GPUs where it lives there, else of the machine."""
    if settings.n_gpu_layers and not settings.disable_offload_kqv:
        return sum(device.free_bytes for device in native_devices() if device.kind == "gpu")
    # Mapped weights count as page cache, which looks free but is about to be needed.
    mapped = 0 if settings.disable_mmap else model.size_bytes
    return max(0, available_bytes() - mapped)


def shape_of(
    model: NativeModel, metadata: dict[str, str], rope_factor: float | None = None
) -> ModelShape:
    """A model's shape; for layers that differ, an upper bound of what they cache.

    Raises:
        BackendError: positions are to be stretched that the model does not have.
    """
    if rope_factor is not None and not model.has_rotary_positions:
        raise BackendError(
            f"--rope-factor {rope_factor}: this model has no rotary positions to stretch",
            remedy="leave it out",
        )
    architecture = metadata.get("general.architecture", "")
    head = model.n_embd // max(1, model.n_head)
    heads = model.n_layer * (model.n_head_kv or model.n_head)

    def length(kind: str) -> int:
        return int(metadata.get(f"{architecture}.attention.{kind}_length", head))

    return ModelShape(
        n_ctx_train=model.n_ctx_train,
        key_values=heads * length("key"),
        value_values=heads * length("value"),
        size_bytes=model.size_bytes,
        n_vocab=model.n_vocab,
        has_state=model.has_state,
        rope_factor=rope_factor,
    )


def open_context(model: NativeModel, plan: Plan, settings: LlamaCppSettings) -> NativeContext:
    """Make the context a plan describes.

    Raises:
        BackendError: llama.cpp refuses it; the message quotes why.
    """
    cpus, size = len(os.sched_getaffinity(0)), model.size_bytes
    return NativeContext(
        model,
        ContextOptions(
            n_ctx=plan.cache_tokens,
            n_batch=plan.batch_tokens,
            n_ubatch=plan.ubatch_tokens,
            n_seq_max=plan.num_sequences,
            max_scored_tokens=plan.scored_tokens,
            rope_scale_factor=plan.rope_factor,
            n_threads=num_threads("--n-threads", settings.n_threads, size, cpus),
            n_threads_batch=num_threads("--n-threads-batch", settings.n_threads_batch, size, cpus),
            type_k=enums.CACHE_TYPES[settings.type_k],
            type_v=enums.CACHE_TYPES[settings.type_v],
            offload_kqv=not settings.disable_offload_kqv,
            flash_attention=_uses_flash_attention(settings),
        ),
    )


def _uses_flash_attention(settings: LlamaCppSettings) -> bool:
    """Whether to: llama.cpp's flash attention would round a float32 cache to float16."""
    plain = settings.disable_flash_attention or "f32" in {settings.type_k, settings.type_v}
    if plain and settings.type_v not in {"f32", "f16", "bf16"}:
        raise BackendError(
            f"--type-v {settings.type_v} needs flash attention, which --disable-flash-attention "
            "and float32 keys exclude",
            remedy="change one of them, or use --type-v f16",
        )
    return not plain


class WarmUp(NamedTuple):
    """What the first steps showed.

    Attributes:
        trimmable: the tail of a sequence can be dropped. A running state (Mamba) cannot be turned
            back, and a sliding window has forgotten what a shorter sequence would need.
        tokens_per_s: how fast a prompt is computed, alone and if nothing else is busy now: what to
            go by until real ones have shown it.
    """

    trimmable: bool
    tokens_per_s: float


def warm_up(model: NativeModel, context: NativeContext, max_tokens: int) -> WarmUp:
    """Run a few steps of at most `max_tokens`: one pages the weights in, the others are timed.

    Raises:
        ModelError: the model does not compute.
    """
    _first_step(model, context, min(4, max_tokens))
    trimmable = context.remove(0, 2) and model.n_swa == 0 and not model.has_state
    context.clear()
    tokens_per_s = _prompt_speed(model, context, min(_TIMED_TOKENS, max_tokens))
    more = min(int(tokens_per_s * _TIMED_S), _MOST_TIMED_TOKENS, max_tokens)
    if more > _TIMED_TOKENS:
        tokens_per_s = _prompt_speed(model, context, more)
    return WarmUp(trimmable, tokens_per_s)


def _prompt_speed(model: NativeModel, context: NativeContext, num_tokens: int) -> float:
    """Tokens a second of one prompt; nothing of it stays."""
    started = time.perf_counter()
    _first_step(model, context, num_tokens)
    duration_s = time.perf_counter() - started
    context.clear()
    return num_tokens / max(duration_s, 1e-9)


def _first_step(model: NativeModel, context: NativeContext, num_tokens: int) -> None:
    batch = TokenBatch(num_tokens)
    batch.tokens[:] = model.bos_token_id or 0
    batch.positions[:] = range(num_tokens)
    batch.wants_logits[-1] = 1
    log.forget_complaints()
    if code := context.decode(batch, num_tokens):
        raise ModelError(
            f"the model does not compute (code {code}): {log.cause('llama.cpp does not say why')}"
        )
    context.logits(1)
