"""The architectures that docs/models.md promises, each as small configs that reach all it does.

A class has a case per way to compute that published models choose by their config.
"""

from typing import Any, Final

from tests.torch.models.tiny_checkpoint import BOS_ID, EOS_ID, PAD_ID, VOCABULARY, Case

_TOKENS: Final = {
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD_ID,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
}
_SMALL: Final = {
    **_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
_COHERE: Final = {**_SMALL, "logit_scale": 1.0}  # the usual one shrinks differences
_WIDE_HEADS: Final = {**_SMALL, "head_dim": 24}
_EXPERTS: Final = {"num_local_experts": 4, "num_experts_per_tok": 2}
_WINDOW: Final = 16
# Where every layer has a window, so little is held that a cache must be as small as the longest
# sequence, and the window not too small, for sequences to get in each other's way.
_ALL_WINDOW: Final = {**_SMALL, "sliding_window": 28}
_WINDOW_CACHE: Final = 96


_OF_CASES: Final = ("attention", "cache_tokens", "seed", "weight_std")


def _case(model_type: str, base: dict[str, Any], variant: str = "", /, **changes: Any) -> Case:
    fields = {name: changes.pop(name) for name in _OF_CASES if name in changes}
    return Case(model_type=model_type, variant=variant, config={**base, **changes}, **fields)


_GPT2: Final = {**_TOKENS, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512}
_OPT: Final = {
    **_TOKENS,
    "hidden_size": 64,
    "ffn_dim": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "word_embed_proj_dim": 64,
}
_LONG_ROPE: Final = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "short_factor": [1.0 + place / 8 for place in range(8)],
    "long_factor": [1.0 + place / 2 for place in range(8)],
}

PAGED: Final = [
    _case("llama", _SMALL),
    _case(
        "llama",
        _SMALL,
        "rotary scaling of Llama 3, tied head",
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    _case(
        "llama",
        _SMALL,
        "YaRN, biases",
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    _case("mistral", _SMALL, sliding_window=None),
    _case("mistral", _ALL_WINDOW, "window", cache_tokens=_WINDOW_CACHE),
    _case("mixtral", _SMALL, **_EXPERTS, sliding_window=None),
    _case("qwen2", _SMALL),
    _case(
        "qwen2",
        _SMALL,
        "window from a layer on",
        use_sliding_window=True,
        sliding_window=_WINDOW,
        max_window_layers=1,
    ),
    _case(
        "qwen2_moe",
        _SMALL,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=48,
        decoder_sparse_step=2,
    ),
    _case("qwen3", _WIDE_HEADS),
    _case("qwen3_moe", _WIDE_HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    _case("gemma", _WIDE_HEADS, num_key_value_heads=1),
    _case("gemma2", _WIDE_HEADS, sliding_window=_WINDOW, query_pre_attn_scalar=20),
    _case("gemma3_text", _WIDE_HEADS, num_hidden_layers=7, sliding_window=_WINDOW, seed=1),
    _case("phi", _SMALL, num_key_value_heads=4, seed=1),
    _case("phi", _SMALL, "normalized queries and keys", qk_layernorm=True, seed=2),
    _case("phi3", _SMALL, sliding_window=None),
    _case("phi3", _ALL_WINDOW, "window", cache_tokens=_WINDOW_CACHE),
    _case(
        "phi3",
        _SMALL,
        "LongRoPE, short texts",
        rope_parameters={**_LONG_ROPE, "original_max_position_embeddings": 256},
        original_max_position_embeddings=256,
    ),
    # Long ones: all are, so that transformers begins with the factors that it ends with.
    _case(
        "phi3",
        _SMALL,
        "LongRoPE",
        rope_parameters={**_LONG_ROPE, "original_max_position_embeddings": 4},
        original_max_position_embeddings=4,
        seed=1,
    ),
    _case("phimoe", _ALL_WINDOW, **_EXPERTS, cache_tokens=_WINDOW_CACHE),
    _case("gpt_neox", _SMALL),
    _case("gpt_neox", _SMALL, "residuals in a row", use_parallel_residual=False),
    _case("gpt2", _GPT2),
    _case(
        "gpt2",
        _GPT2,
        "scaled by layer",
        scale_attn_by_inverse_layer_idx=True,
        reorder_and_upcast_attn=True,
    ),
    _case("gpt_bigcode", _GPT2, seed=1),
    _case("gpt_bigcode", _GPT2, "a key for every query", multi_query=False, weight_std=0.3),
    _case("starcoder2", _ALL_WINDOW, cache_tokens=_WINDOW_CACHE),
    _case("cohere", _COHERE),
    _case("cohere", _COHERE, "normalized queries and keys", use_qk_norm=True),
    _case("cohere2", _COHERE, num_hidden_layers=4, sliding_window=_WINDOW),
    _case(
        "dbrx",
        _TOKENS,
        d_model=64,
        n_layers=3,
        n_heads=4,
        max_seq_len=512,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        ffn_config={
            "ffn_hidden_size": 64,
            "moe_num_experts": 4,
            "moe_top_k": 2,
            "ffn_act_fn": {"name": "silu"},
        },
    ),
    _case("opt", _OPT),
    _case(
        "opt",
        _OPT,
        "350m",
        do_layer_norm_before=False,
        word_embed_proj_dim=32,
        tie_word_embeddings=False,
        seed=1,
    ),
    _case(
        "opt",
        _OPT,
        "Galactica",
        activation_function="gelu",
        enable_bias=False,
        layer_norm_elementwise_affine=False,
    ),
    _case("olmo", _SMALL, clip_qkv=2.0),
    _case("olmo2", _SMALL, seed=1),
    _case("olmo3", _SMALL, num_hidden_layers=4, sliding_window=_WINDOW),
    _case("olmoe", _SMALL, num_experts=4, num_experts_per_tok=2),
    _case(
        "granite",
        _SMALL,
        embedding_multiplier=1.5,
        attention_multiplier=0.2,
        residual_multiplier=0.7,
        logits_scaling=2.0,
    ),
    _case("granitemoe", _SMALL, **_EXPERTS, residual_multiplier=0.7, seed=2),
    _case("gpt_oss", _WIDE_HEADS, **_EXPERTS, sliding_window=_WINDOW),
    _case("smollm3", _SMALL, num_hidden_layers=4),
    _case("stablelm", _SMALL),
    _case(
        "stablelm",
        _SMALL,
        "parallel residuals, normalized queries and keys",
        use_parallel_residual=True,
        qk_layernorm=True,
        use_qkv_bias=True,
    ),
    _case("glm4", _WIDE_HEADS),
    _case("exaone4", _SMALL, num_hidden_layers=4, sliding_window=_WINDOW),
    _case("nemotron", _SMALL),
    _case("persimmon", _SMALL),
    _case(
        "deepseek_v3",
        _SMALL,
        num_key_value_heads=4,
        kv_lora_rank=16,
        q_lora_rank=24,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
    ),
]

_FALCON: Final = {
    **_TOKENS,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
_GPTJ: Final = {**_GPT2, "rotary_dim": 8}
_MAMBA: Final = {**_TOKENS, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 8}
_T5: Final = {
    **_TOKENS,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 3,
    "num_heads": 4,
    "decoder_start_token_id": PAD_ID,
}

OWN_CACHE: Final = [
    _case("falcon", _FALCON, "7B", multi_query=True, parallel_attn=True, bias=False),
    _case(
        "falcon", _FALCON, "40B and later", new_decoder_architecture=True, num_kv_heads=2, seed=1
    ),
    _case(
        "falcon",
        _FALCON,
        "RW, with ALiBi",
        alibi=True,
        multi_query=False,
        parallel_attn=False,
        bias=True,
        attention="sdpa",  # in the eager one transformers adds ALiBi twice
        seed=1,
        weight_std=0.3,
    ),
    _case(
        "bloom",
        {**_TOKENS, "hidden_size": 64, "n_layer": 3, "n_head": 4},
        tie_word_embeddings=False,  # or its answers are one token over and over
    ),
    _case(
        "mpt", {**_TOKENS, "d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 512}, seed=1
    ),
    _case("gptj", _GPTJ, seed=1),
    _case("codegen", _GPTJ),
    _case(
        "gpt_neo",
        {**_TOKENS, "hidden_size": 64, "num_layers": 4, "num_heads": 4},
        max_position_embeddings=512,
        attention_types=[[["global", "local"], 2]],
        window_size=_WINDOW,
        seed=1,
    ),
    _case(
        "xglm",
        {**_TOKENS, "d_model": 64, "ffn_dim": 128, "num_layers": 3, "attention_heads": 4},
        max_position_embeddings=512,
        tie_word_embeddings=False,  # likewise
        seed=1,
    ),
    _case("mamba", _MAMBA),
    _case("mamba2", _MAMBA, head_dim=16, num_heads=8, n_groups=2, chunk_size=8, seed=2),
    _case("falcon_mamba", _MAMBA),
    _case(
        "jamba",
        _SMALL,
        num_hidden_layers=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        mamba_d_state=8,
        use_mamba_kernels=False,
    ),
    _case("t5", _T5, weight_std=0.3),
    _case(
        "t5",
        _T5,
        "1.1 and Flan",
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
    _case("mt5", _T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
]

CASES: Final = [*PAGED, *OWN_CACHE]
# Of each road the code takes one: plain, windows beside none, experts, learned positions, a cache
# of the class's own, an encoder.
IN_EVERY_RUN: Final = frozenset({"llama", "gemma3_text", "mixtral", "gpt2", "falcon, 7B", "t5"})
