"""The same shapes as `random_model`'s, in the form that vLLM reads: bfloat16 safetensors.

`python -m benchmarks.hf_model SHAPE…` prints the folders. Weights are random as well; the
vocabulary is the same, so that prompts of token ids mean as much work.
"""

import argparse
import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from benchmarks.peers.places import kept
from benchmarks.random_model import MODELS, Model, more_tokens, tensors_of
from tests.llamacpp import tiny_gguf

_NAMES: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_of(name: str) -> Path:
    """A model's folder; made if it is not there."""
    model, folder = MODELS[name], kept("models", f"{name}-hf")
    if not (folder / "config.json").exists():
        folder.mkdir(exist_ok=True)
        _write_weights(folder / "model.safetensors", model)
        _write_tokenizer(folder, model)
        (folder / "config.json").write_text(json.dumps(_config(model)))
    return folder


def _config(model: Model) -> dict[str, Any]:
    shape, (tokens, _, _) = model.shape, tiny_gguf.bpe_vocabulary()
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context,
        "vocab_size": model.vocabulary,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": tokens.index("<|begin|>"),
        "eos_token_id": tokens.index("<|end|>"),
    }


def _write_weights(path: Path, model: Model) -> None:
    """A safetensors file: the header's length, the header as JSON, the tensors."""
    header: dict[str, Any] = {}
    pieces: list[bytes] = []
    offset = 0
    for name, tensor in tensors_of(model).items():
        # bfloat16 is the upper half of a float32.
        piece = (tensor.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[_hf_name(name)] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(piece)],
        }
        offset += len(piece)
        pieces.append(piece)
    head = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.writelines(pieces)


def _hf_name(name: str) -> str:
    """ "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj.weight"."""
    *block, last, weight = name.split(".")
    layer = f"model.layers.{block[1]}." if block else ""
    return f"{layer}{_NAMES[last]}.{weight}"


def _write_tokenizer(folder: Path, model: Model) -> None:
    tokens, types, merges = tiny_gguf.bpe_vocabulary()
    vocabulary = {token: id_ for id_, token in enumerate([*tokens, *more_tokens(model)])}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=model.words_alone))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [
        token for token, type_ in zip(tokens, types, strict=True) if type_ == tiny_gguf.CONTROL
    ]
    added = [AddedToken(token, special=True) for token in specials]
    tokenizer.add_special_tokens(added)  # pyright: ignore[reportUnknownMemberType] -- untyped
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "chat_template": tiny_gguf.CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="+", choices=MODELS)
    for name in parser.parse_args().shapes:
        print(hf_of(name))


if __name__ == "__main__":
    main()
