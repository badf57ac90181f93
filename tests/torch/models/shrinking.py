"""Small configs for classes that nobody wrote one for: defaults, shrunk where a name is a size."""

from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tests.torch.models.tiny_checkpoint import BOS_ID, EOS_ID, PAD_ID, VOCABULARY, Case

MAX_PARAMETERS: Final = 4_000_000

_NAMES_BY_SIZE: Final[dict[int, tuple[str, ...]]] = {
    VOCABULARY: ("vocab_size", "vocab_size_per_layer_input"),
    PAD_ID: ("pad_token_id", "decoder_start_token_id", "num_kv_shared_layers"),
    BOS_ID: ("bos_token_id", "n_group", "topk_group", "num_expert_group"),
    EOS_ID: ("eos_token_id",),
    512: ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length"),
    128: ("intermediate_size", "ffn_dim", "d_ff", "d_inner", "dim_ff", "ffn_hidden_size"),
    64: ("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "embedding_size", "lru_width"),
    32: ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"),
    24: ("q_lora_rank",),
    16: (
        *("head_dim", "attention_head_dim", "v_head_dim", "qk_nope_head_dim", "mamba_head_dim"),
        *("mamba_d_head", "linear_key_head_dim", "linear_value_head_dim", "kv_lora_rank", "d_kv"),
        *("sliding_window", "attention_chunk_size", "hidden_size_per_layer_input", "index_topk"),
        "index_head_dim",
    ),
    8: (
        *("rotary_dim", "qk_rope_head_dim", "state_size", "mamba_d_state", "ssm_state_size"),
        *("mamba_n_heads", "mamba_num_heads", "mamba_chunk_size", "chunk_size"),
    ),
    4: (
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_attention_heads"),
        *("n_head", "n_heads", "num_heads", "attention_heads", "linear_num_value_heads"),
        *("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"),
    ),
    2: (
        *("num_key_value_heads", "num_kv_heads", "linear_num_key_heads", "num_experts_per_tok"),
        *("moe_topk", "moe_top_k", "moe_k", "top_k_experts", "index_n_heads"),
        *("decoder_layers", "encoder_layers"),
    ),
    1: ("mamba_n_groups", "n_groups", "first_k_dense_replace", "moe_layer_start_index"),
}
_SIZES: Final = {name: size for size, names in _NAMES_BY_SIZE.items() for name in names}
_ENCODER_DECODER_SIZES: Final = {
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 128),
}
_PER_LAYER: Final = ("layer_types", "mlp_layer_types")


class NotShrunkError(Exception):
    """The rules make no small model of a type; the message says why."""


def shrunk(model_type: str) -> Case:
    """A small model of a type.

    Raises:
        NotShrunkError: there is none.
    """
    kind = CONFIG_MAPPING[model_type]
    if kind.sub_configs:
        raise NotShrunkError("it is made of parts")
    try:
        return _shrunk(model_type, kind())
    except NotShrunkError:
        raise
    except Exception as error:  # configs are validated by anybody's code
        raise NotShrunkError("its sizes go together in a way of their own") from error


def _shrunk(model_type: str, default: Any) -> Case:
    sizes = {**_SIZES, **_ENCODER_DECODER_SIZES}
    config = {name: sizes[name] for name in default.to_dict() if name in sizes}
    if config.get("kv_lora_rank"):  # each head has keys of its own, made of what all share
        config["num_key_value_heads"] = config["num_attention_heads"]
        config.pop("head_dim", None)
    for name in _PER_LAYER:
        values: list[str] | None = getattr(default, name, None)
        if values and not isinstance(getattr(type(default), name, None), property):
            kinds = list(dict.fromkeys(values))
            num_layers: int = config["num_hidden_layers"]
            config[name] = (kinds * num_layers)[:num_layers]
    small = AutoConfig.for_model(model_type, **config)
    auto = AutoModelForSeq2SeqLM if small.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        num_parameters = auto.from_config(small).num_parameters()
    if num_parameters > MAX_PARAMETERS:
        raise NotShrunkError("it stays large")
    return Case(model_type=model_type, config=config)
