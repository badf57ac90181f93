"""The same weights as a GGUF file for llama.cpp, written with the gguf package alone."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from recipe.chat_format import END_OF_TEXT, PADDING, SPECIAL_TOKENS, TURN_END
from recipe.tensor_layout import gguf_name, interleaved


def _as_float32(folder: Path) -> dict[str, NDArray[np.float32]]:
    return {
        name: tensor.float().numpy()
        for name, tensor in load_file(folder / "model.safetensors").items()
    }


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = tokenizer["model"]["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    control = gguf.TokenType.CONTROL
    types = [control if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(ids[END_OF_TEXT])
    writer.add_eos_token_id(ids[TURN_END])
    writer.add_eot_token_id(ids[TURN_END])
    writer.add_pad_token_id(ids[PADDING])
    writer.add_add_bos_token(settings["add_bos_token"])
    writer.add_add_eos_token(settings["add_eos_token"])
    writer.add_add_space_prefix(settings["add_prefix_space"])
    writer.add_chat_template(settings["chat_template"])


def export_gguf(folder: Path, path: Path) -> None:
    """Writes `path` from the safetensors, configuration and tokenizer in `folder`.

    Raises:
        ValueError: a weight changes when it is stored as float16.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Backplane demo")
    writer.add_description("A tiny model that shows the Backplane server at work")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, folder)
    for name, tensor in _as_float32(folder).items():
        if name.endswith("q_proj.weight"):
            stored = interleaved(tensor, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            stored = interleaved(tensor, config["num_key_value_heads"])
        else:
            stored = tensor
        if stored.ndim > 1:  # llama.cpp wants gains in float32
            halves = stored.astype(np.float16)
            if not np.array_equal(halves.astype(np.float32), stored):
                raise ValueError(f"{name} does not fit float16; export it from shipped_weights()")
            stored = halves
        writer.add_tensor(gguf_name(name), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
