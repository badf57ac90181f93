"""Tiny models with random weights, saved as Hugging Face repositories have them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from backplane_core.backend import ModelSource
from backplane_torch.engine.checkpoint.checkpoint import local_folder
from backplane_torch.engine.checkpoint.config import read_config
from backplane_torch.engine.checkpoint.loading import (
    FoundModel,
    LoadedModel,
    find_model,
    load_model,
)
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

CPU = torch.device("cpu")
SMALL_SHARDS = "20KB"

_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**_TEXT))


def gpt2() -> PreTrainedModel:
    sizes = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))


def mixtral() -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(**_TEXT, num_local_experts=4, num_experts_per_tok=2))


def t5() -> PreTrainedModel:
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, num_heads=4))


def gemma3() -> PreTrainedModel:
    config = Gemma3Config(
        text_config={**_TEXT, "sliding_window": 8}, vision_config=_VISION, mm_tokens_per_image=1
    )
    return Gemma3ForConditionalGeneration(config)


def mistral3() -> PreTrainedModel:
    return Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config={**_TEXT, "model_type": "mistral"},
            vision_config={**_VISION, "model_type": "pixtral"},
        )
    )


def save(
    make: Callable[[], PreTrainedModel],
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    shards: str = "5GB",
) -> PreTrainedModel:
    """Write a model with seeded random weights, none of which a fresh model would have."""
    torch.manual_seed(1)
    model = make().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder, max_shard_size=shards)
    return model.eval()


def load(
    path: Path,
    *,
    config: PreTrainedConfig | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device = CPU,
    trust_remote_code: bool = False,
    pickles: bool = False,
    report: Callable[[float, str], None] = lambda fraction, name: None,
) -> LoadedModel:
    found = find(path, config=config, trust_remote_code=trust_remote_code, pickles=pickles)
    return load_model(found, dtype=dtype, device=device, report=report)


def find(
    path: Path,
    *,
    config: PreTrainedConfig | None = None,
    trust_remote_code: bool = False,
    pickles: bool = False,
) -> FoundModel:
    model = source(path)
    config = config or read_config(local_folder(model), trust_remote_code=trust_remote_code)
    return find_model(model, config, trust_remote_code=trust_remote_code, allow_pickle=pickles)


def source(path: Path) -> ModelSource:
    return ModelSource(model_id="some/model", path=str(path))


def edit_json(path: Path, **changes: object) -> None:
    """Change fields of a JSON object; None removes one."""
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))


def edit_header(path: Path, edit: Callable[[dict[str, dict[str, object]]], None]) -> None:
    """Change the header of a safetensors file, and not what follows it."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
