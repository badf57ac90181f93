"""The flags common to all backends, as far as a GGUF model and llama.cpp have an answer to them.

Each has its effect, or is refused by a sentence that says what replaces it.
"""

import logging
import math
import os

from backplane_core.backend import EngineSettings
from backplane_core.errors import BackendError

from backplane_llamacpp.native import enums
from backplane_llamacpp.settings import LlamaCppSettings

_log = logging.getLogger(__name__)

_NO_GRAPHS = "GGML_CUDA_DISABLE_GRAPHS"


def check_engine_settings(engine: EngineSettings) -> None:
    """Refuse flags that other backends have and a GGUF file answers by itself.

    Raises:
        BackendError: one of them is set.
    """
    if engine.num_shard is not None and engine.num_shard > 1:
        raise BackendError(
            f"the llamacpp backend has no --num-shard {engine.num_shard}: one process drives all "
            "GPUs",
            remedy="use --n-gpu-layers -1 with --split-mode layer or row",
        )
    if engine.dtype is not None:
        raise BackendError(
            f"--dtype {engine.dtype} has no meaning for a GGUF file, which says its own types",
            remedy="leave it out, or name a file of that type: --model-id owner/name:F16",
        )
    if engine.quantize is not None:
        raise BackendError(
            f"--quantize {engine.quantize} has no meaning for a GGUF file, which is quantized or "
            "not",
            remedy="name a quantized file (--model-id owner/name:Q4_K_M), or make one with "
            "backplane quantize",
        )
    if engine.speculate:
        raise BackendError(
            f"--speculate {engine.speculate}: the llamacpp backend drafts no tokens",
            remedy="leave it out; a smaller quantization is what makes a stream faster here",
        )
    if engine.memory_fraction is not None and not 0.0 < engine.memory_fraction <= 1.0:
        raise BackendError(
            f"--cuda-memory-fraction {engine.memory_fraction} is no share: it must be above 0 and "
            "at most 1"
        )
    _check_graphs(engine.cuda_graphs)
    if engine.trust_remote_code:
        _log.info("--trust-remote-code changes nothing: a GGUF file holds no code")


def _check_graphs(sizes: tuple[int, ...] | None) -> None:
    """Zeros mean none; other sizes cannot be chosen."""
    if sizes is None:
        return
    if any(sizes):
        raise BackendError(
            f"--cuda-graphs {','.join(map(str, sizes))}: llama.cpp captures CUDA graphs by itself, "
            "of the sizes that come",
            remedy="leave it out; --cuda-graphs 0 turns them off",
        )
    os.environ[_NO_GRAPHS] = "1"  # read by llama.cpp's CUDA code when it first computes


def rope_factor(engine: EngineSettings) -> float | None:
    """By how much to stretch positions linearly; None leaves them as the file says.

    Raises:
        BackendError: another kind of scaling, or no factor to stretch by.
    """
    if engine.rope_scaling is None and engine.rope_factor is None:
        return None
    if engine.rope_scaling not in {None, "linear"}:
        raise BackendError(
            f"--rope-scaling {engine.rope_scaling}: llama.cpp fixes how positions turn when it "
            "loads a model, and cannot change it by a sequence's length",
            remedy="use --rope-scaling linear, or a GGUF file made for long texts (YaRN), which "
            "needs no flag",
        )
    factor = 1.0 if engine.rope_factor is None else engine.rope_factor
    if not 1.0 <= factor < math.inf:
        raise BackendError(f"--rope-factor {factor} stretches nothing: it must be at least 1")
    return None if factor == 1.0 else factor


def with_cache_dtype(settings: LlamaCppSettings, engine: EngineSettings) -> LlamaCppSettings:
    """Settings in which `--kv-cache-dtype` is both cache types.

    Raises:
        BackendError: llama.cpp has no such cache, or --type-k/--type-v say otherwise.
    """
    wanted = engine.kv_cache_dtype
    if wanted is None:
        return settings
    if wanted not in enums.CACHE_TYPES:
        hint = "; q8_0 takes about as much room" if wanted.startswith("fp8") else ""
        raise BackendError(
            f"llama.cpp caches no {wanted}", remedy=f"it has: {', '.join(enums.CACHE_TYPES)}{hint}"
        )
    values = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    for name in ("type_k", "type_v"):
        if values[name] not in {LlamaCppSettings.__dataclass_fields__[name].default, wanted}:
            flag = name.replace("_", "-")
            raise BackendError(f"--kv-cache-dtype {wanted} and --{flag} {values[name]} contradict")
        values[name] = wanted
    return LlamaCppSettings(**values)
