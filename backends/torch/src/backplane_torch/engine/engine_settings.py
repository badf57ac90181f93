"""The flags common to all backends, as far as a model in PyTorch has an answer to them.

Each has its effect, or is refused by a sentence that says what replaces it.
"""

import math
from typing import Final

import torch
from backplane_core.backend import EngineSettings
from backplane_core.errors import BackendError
from transformers import PreTrainedConfig

from backplane_torch.engine.devices.device import TorchDevice

_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def check_engine_settings(engine: EngineSettings, device: TorchDevice) -> None:
    """Refuse flags that cannot be honoured.

    Raises:
        BackendError: one of them is set.
    """
    if engine.num_shard is not None and engine.num_shard > 1:
        raise BackendError(
            f"--num-shard {engine.num_shard}: this backend computes on one device, {device.name}",
            remedy="leave it out",
        )
    if engine.speculate:
        raise BackendError(
            f"--speculate {engine.speculate}: this backend drafts no tokens", remedy="leave it out"
        )
    if engine.cuda_graphs is not None and any(engine.cuda_graphs):
        raise BackendError(
            f"--cuda-graphs {','.join(map(str, engine.cuda_graphs))}: {device.name} has no CUDA "
            "graphs",
            remedy="leave it out",
        )
    if engine.memory_fraction is not None and not 0.0 < engine.memory_fraction <= 1.0:
        raise BackendError(
            f"--cuda-memory-fraction {engine.memory_fraction} is no share: it must be above 0 and "
            "at most 1"
        )
    if engine.quantize is not None and engine.quantize not in device.quantizations:
        known = ", ".join(device.quantizations)
        raise BackendError(
            f"--quantize {engine.quantize} is nothing that {device.name} computes with",
            remedy=f"use {known}, or leave it out" if known else "leave it out",
        )


def compute_dtype(engine: EngineSettings, own: torch.dtype, device: TorchDevice) -> torch.dtype:
    """What to compute in: as asked, or what suits the checkpoint and the device.

    Args:
        engine: the flags.
        own: the checkpoint's dtype.
        device: where it is computed.

    Raises:
        BackendError: no such type, or one for the cache that is another.
    """
    if engine.dtype is not None and engine.dtype not in _DTYPES:
        raise BackendError(
            f"--dtype {engine.dtype} is no type to compute in", remedy=f"use {', '.join(_DTYPES)}"
        )
    dtype = device.default_dtype(own) if engine.dtype is None else _DTYPES[engine.dtype]
    name = str(dtype).removeprefix("torch.")
    if engine.kv_cache_dtype not in {None, "auto", name}:
        raise BackendError(
            f"--kv-cache-dtype {engine.kv_cache_dtype}: keys and values are kept as they are "
            f"computed, in {name}",
            remedy="leave it out, or choose that type with --dtype",
        )
    return dtype


def stretch_positions(config: PreTrainedConfig, engine: EngineSettings) -> None:
    """Apply `--rope-factor` to a configuration, in place.

    Raises:
        BackendError: another kind of scaling than linear, a factor that stretches nothing, or a
            model that has no rotary positions, several kinds of them, or stretched ones.
    """
    if engine.rope_scaling is None and engine.rope_factor is None:
        return
    if engine.rope_scaling not in {None, "linear"}:
        raise BackendError(
            f"--rope-scaling {engine.rope_scaling}: positions of cached tokens cannot change "
            "with a sequence's length",
            remedy="use --rope-scaling linear, or a model made for long texts, which needs no flag",
        )
    factor = 1.0 if engine.rope_factor is None else engine.rope_factor
    if not 1.0 <= factor < math.inf:
        raise BackendError(f"--rope-factor {factor} stretches nothing: it must be at least 1")
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None)
    if rope and any(isinstance(value, dict) for value in rope.values()):
        raise BackendError(
            f"--rope-factor {factor:g}: this model's layers turn positions in several ways",
            remedy="leave it out",
        )
    if not rope or rope.get("rope_type", "default") != "default":
        kind = f"has positions of type {rope['rope_type']}" if rope and "rope_type" in rope else ""
        raise BackendError(
            f"--rope-factor {factor:g}: this model {kind or 'has no rotary positions to stretch'}",
            remedy="leave it out",
        )
    if factor > 1.0:
        text.rope_parameters = {**rope, "rope_type": "linear", "factor": factor}
        text.max_position_embeddings = int(text.max_position_embeddings * factor)
