"""Writes LoRA adapters in GGUF form for the tiny model, and says what they add to its weights."""

from pathlib import Path

import gguf
import numpy as np

from tests.llamacpp import tiny_gguf

RANK, ALPHA = 4, 8.0
_TARGETS = ("attn_q", "attn_output", "ffn_down")


def write(path: Path, *, seed: int, architecture: str = "llama", width: int | None = None) -> Path:
    """Write an adapter of this seed; `width` other than the model's makes one that does not fit."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    for name, (down, up) in _matrices(seed).items():
        narrow = down if width is None else down[:, :width]
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(narrow))
        writer.add_tensor(f"{name}.lora_b", up)
    tiny_gguf.flush(writer)
    return path


def write_activated(path: Path) -> Path:
    """An adapter that is to apply only after certain tokens."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    writer.add_key_value(
        "adapter.alora.invocation_tokens",
        [7, 8],
        gguf.GGUFValueType.ARRAY,
        gguf.GGUFValueType.UINT32,
    )
    for name, (down, up) in _matrices(1).items():
        writer.add_tensor(f"{name}.lora_a", down)
        writer.add_tensor(f"{name}.lora_b", up)
    tiny_gguf.flush(writer)
    return path


def deltas(seed: int) -> dict[str, np.ndarray]:
    """What the adapter of this seed adds to the model's weights, by their names."""
    return {
        name: (ALPHA / RANK) * (up.astype(np.float64) @ down.astype(np.float64))
        for name, (down, up) in _matrices(seed).items()
    }


def _matrices(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weight's name → (down: rank x inputs, up: outputs x rank)."""
    shape = tiny_gguf.Shape()
    random = np.random.default_rng(1000 + seed)
    weights = tiny_gguf.tensors_of(shape, len(tiny_gguf.bpe_vocabulary()[0]))
    matrices: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for layer in range(shape.layers):
        for target in _TARGETS:
            name = f"blk.{layer}.{target}.weight"
            outputs, inputs = weights[name].shape
            down = random.standard_normal((RANK, inputs)) / np.sqrt(inputs)
            up = random.standard_normal((outputs, RANK)) * 0.7
            matrices[name] = down.astype(np.float32), up.astype(np.float32)
    return matrices
