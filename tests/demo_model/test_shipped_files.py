"""The shipped files: complete, small, of the stated shape, and the two weight files equal."""

from __future__ import annotations

import math
import re

import gguf
import numpy as np
from recipe.tensor_layout import gguf_name, interleaved

MEGABYTE = 1_000_000


def field(reader: gguf.GGUFReader, key: str):
    return reader.get_field(key).contents()


def test_the_folder_holds_the_model_and_nothing_else(shipped_folder):
    names = {path.name for path in shipped_folder.iterdir() if path.name != "__pycache__"}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "backplane-demo-f16.gguf",
    }


def test_the_files_are_under_twenty_megabytes_together(shipped_folder):
    assert sum(path.stat().st_size for path in shipped_folder.iterdir()) < 20 * MEGABYTE


def test_safetensors_are_bfloat16_of_the_shapes_in_the_configuration(
    safetensors_header, shipped_json
):
    config = shipped_json("config.json")
    assert {entry["dtype"] for entry in safetensors_header.values()} == {"BF16"}
    width, head = config["hidden_size"], config["head_dim"]
    shapes = {name: tuple(entry["shape"]) for name, entry in safetensors_header.items()}
    assert shapes["model.embed_tokens.weight"] == (config["vocab_size"], width)
    last = f"model.layers.{config['num_hidden_layers'] - 1}."
    assert shapes[last + "self_attn.q_proj.weight"] == (
        config["num_attention_heads"] * head,
        width,
    )
    assert shapes[last + "self_attn.k_proj.weight"] == (
        config["num_key_value_heads"] * head,
        width,
    )
    assert shapes[last + "mlp.down_proj.weight"] == (width, config["intermediate_size"])
    assert config["tie_word_embeddings"]
    assert "lm_head.weight" not in shapes
    num_parameters = sum(math.prod(shape) for shape in shapes.values())
    assert 2_000_000 <= num_parameters <= 5_000_000


def test_gguf_metadata_says_what_the_configuration_says(gguf_reader, shipped_json):
    config = shipped_json("config.json")
    expected = {
        "general.architecture": "llama",
        "general.name": "Backplane demo",
        "general.license": "apache-2.0",
        "llama.context_length": 2048,
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.rope.dimension_count": config["head_dim"],
        "llama.vocab_size": config["vocab_size"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"][0],
        "tokenizer.ggml.eot_token_id": config["eos_token_id"][0],
        "tokenizer.ggml.padding_token_id": config["pad_token_id"],
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {key: field(gguf_reader, key) for key in expected} == expected
    assert config["max_position_embeddings"] == 2048
    assert math.isclose(field(gguf_reader, "llama.rope.freq_base"), config["rope_theta"])
    assert math.isclose(
        field(gguf_reader, "llama.attention.layer_norm_rms_epsilon"),
        config["rms_norm_eps"],
        rel_tol=1e-6,
    )


def test_generation_config_ends_where_the_model_configuration_ends(shipped_json):
    config, generation = shipped_json("config.json"), shipped_json("generation_config.json")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert generation[key] == config[key]


def test_both_files_hold_the_same_weights_bit_for_bit(weights, gguf_reader, shipped_json):
    config = shipped_json("config.json")
    stored = {tensor.name: tensor for tensor in gguf_reader.tensors}
    assert set(stored) == {gguf_name(name) for name in weights}
    for name, weight in weights.items():
        expected = weight
        if name.endswith("q_proj.weight"):
            expected = interleaved(weight, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            expected = interleaved(weight, config["num_key_value_heads"])
        tensor = stored[gguf_name(name)]
        wanted_type = np.float16 if weight.ndim > 1 else np.float32
        assert tensor.data.dtype == wanted_type, name
        assert np.array_equal(np.asarray(tensor.data, dtype=np.float32), expected), name


def test_rows_move_from_halves_to_neighbours():
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert interleaved(rows, num_heads=2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_the_card_says_what_the_model_is_and_what_was_measured(shipped_folder, weights):
    card = (shipped_folder / "README.md").read_text(encoding="utf-8")
    num_parameters = sum(weight.size for weight in weights.values())
    assert f"{num_parameters:,}" in card
    assert "license: apache-2.0" in card
    stated = re.search(
        r"exact-answer rate ([\d.]+)% \(([\d,]+) of ([\d,]+)\), perplexity\s+([\d.]+)", card
    )
    assert stated is not None
    percent, num_exact, num_questions, perplexity = stated.groups()
    share = int(num_exact.replace(",", "")) / int(num_questions.replace(",", ""))
    assert abs(100 * share - float(percent)) < 0.06
    assert share > 0.8
    assert 1.0 < float(perplexity) < 2.0
    assert "Limits" in card
