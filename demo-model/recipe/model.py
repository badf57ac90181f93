"""The shape of the model, and its weights as they ship: exact in bfloat16 and in float16 alike."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from recipe.chat_format import END_OF_TEXT, PADDING, TURN_END
from recipe.tokenizer import MAX_POSITIONS, VOCABULARY_SIZE

# Widths are multiples of 256, so that k-quants apply; two key-value heads, so that two shards work.
SHAPE = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": MAX_POSITIONS,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "initializer_range": 0.02,
}
ROPE_THETA = 10000.0


def new_model(seed: int) -> LlamaForCausalLM:
    """A freshly initialised model in float32."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, rope_theta=ROPE_THETA))


def shipped_weights(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    """The weights in bfloat16, each value of which float16 represents too.

    Rounding to bfloat16 leaves 8 significant bits, which float16 holds down to 2^-17; below that
    float16 is a multiple of 2^-24 with at most 7 bits, which bfloat16 holds. The input embedding
    is also the output projection and is stored once.

    Raises:
        ValueError: a weight is out of float16's range, or the two types differ.
    """
    shipped = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        rounded = tensor.detach().to(torch.bfloat16).to(torch.float16).to(torch.bfloat16)
        if not torch.equal(rounded.to(torch.float16).float(), rounded.float()):
            raise ValueError(f"{name} is not exact in float16; train with a smaller learning rate")
        shipped[name] = rounded.contiguous()
    return shipped


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_model(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes model.safetensors, config.json and generation_config.json."""
    save_file(shipped_weights(model), folder / "model.safetensors", metadata={"format": "pt"})
    turn_end, end_of_text = tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)
    special_ids: dict[str, object] = {
        "bos_token_id": end_of_text,
        "eos_token_id": [turn_end, end_of_text],
        "pad_token_id": tokenizer.token_to_id(PADDING),
    }
    # rope_theta and torch_dtype are the names that libraries older than transformers 5 read.
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **SHAPE,
        "rope_theta": ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "attention_dropout": 0.0,
        "use_cache": True,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        **special_ids,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"do_sample": False, **special_ids})
