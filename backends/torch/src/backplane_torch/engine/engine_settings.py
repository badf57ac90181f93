"""The flags common to all backends, as far as a model in PyTorch has an answer to them.

Each has its effect, or is refused by a sentence that says what replaces it.
"""

import logging
import math
from typing import Final

import torch
from backplane_core.backend import EngineSettings
from backplane_core.errors import BackendError
from backplane_core.limit_flags import (
    check_cache_holds,
    max_input_tokens,
    max_total_tokens,
    positive,
)
from transformers import PreTrainedConfig

from backplane_torch.engine.devices.device import TorchDevice

_log = logging.getLogger("backplane_torch")

_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_BESIDE_INTEGERS: Final = (torch.bfloat16, torch.float32)


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


def check_limits(engine: EngineSettings, block_size: int, max_positions: int | None) -> None:
    """Refuse sizes that contradict one another or the model, whatever memory there will be.

    Args:
        engine: the flags.
        block_size: of a paged cache, which holds whole blocks.
        max_positions: tokens that the model sees; None is any number.

    Raises:
        BackendError: as said.
    """
    positive("--torch.block-size", block_size)
    positive("--max-batch-size", engine.max_batch_size)
    positive("--max-batch-prefill-tokens", engine.max_batch_prefill_tokens)
    positive("--max-input-tokens", engine.max_input_tokens)
    longest = max_total_tokens(engine, max_positions)
    bounds = [] if max_positions is None else [max_positions]
    if cache_tokens := positive("--max-batch-total-tokens", engine.max_batch_total_tokens):
        bounds.append(-(-cache_tokens // block_size) * block_size)
        check_cache_holds(longest, bounds[-1])
    if longest is not None or bounds:
        max_input_tokens(longest or min(bounds), engine)


def compute_dtype(engine: EngineSettings, own: torch.dtype, device: TorchDevice) -> torch.dtype:
    """What to compute in: as asked, or what suits the checkpoint and the device.

    Args:
        engine: the flags.
        own: the checkpoint's dtype.
        device: where it is computed.

    Raises:
        BackendError: no such type, one for the cache that is another, or one beside which 8-bit
            integers are not computed.
    """
    if engine.dtype is not None and engine.dtype not in _DTYPES:
        raise BackendError(
            f"--dtype {engine.dtype} is no type to compute in", remedy=f"use {', '.join(_DTYPES)}"
        )
    dtype = device.default_dtype(own) if engine.dtype is None else _DTYPES[engine.dtype]
    name = _named(dtype)
    if engine.kv_cache_dtype not in {None, "auto", name}:
        raise BackendError(
            f"--kv-cache-dtype {engine.kv_cache_dtype}: keys and values are kept as they are "
            f"computed, in {name}",
            remedy="leave it out, or choose that type with --dtype",
        )
    if engine.quantize is not None and dtype not in _BESIDE_INTEGERS:
        known = " or ".join(map(_named, _BESIDE_INTEGERS))
        raise BackendError(
            f"--quantize {engine.quantize} computes beside {known}, not {name}",
            remedy="choose one of these with --dtype",
        )
    if engine.dtype is None and dtype is not own:
        # Launchers take one of --quantize and --dtype, as TGI's does.
        otherwise = f"; --dtype {_named(own)} keeps them" if engine.quantize is None else ""
        _log.info(
            "weights of %s are computed in %s, which is faster on %s%s",
            *(_named(own), name, device.name, otherwise),
        )
    return dtype


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
