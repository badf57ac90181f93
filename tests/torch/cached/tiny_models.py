"""Models of a few thousand random weights, of every kind that brings its own cache."""

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BloomConfig,
    CodeGenConfig,
    FalconConfig,
    FalconMambaConfig,
    GPTJConfig,
    GPTNeoConfig,
    JambaConfig,
    Mamba2Config,
    MambaConfig,
    MptConfig,
    MT5Config,
    PreTrainedModel,
    T5Config,
    XGLMConfig,
)

VOCABULARY = 97

_FALCON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
}
_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "initializer_factor": 2.0,
    "decoder_start_token_id": 0,
}
_MAMBA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "state_size": 8,
    "initializer_range": 0.4,
}

CONFIGS = {
    "falcon": lambda: FalconConfig(**_FALCON, multi_query=True, parallel_attn=True),
    "falcon new": lambda: FalconConfig(**_FALCON, new_decoder_architecture=True, num_kv_heads=2),
    "falcon alibi": lambda: FalconConfig(
        **{**_FALCON, "initializer_range": 0.8},
        alibi=True,
        multi_query=False,
        parallel_attn=False,
        bias=True,
    ),
    "bloom": lambda: BloomConfig(hidden_size=32, n_layer=2, n_head=4, initializer_range=0.4),
    "mpt": lambda: MptConfig(
        d_model=32, n_heads=4, n_layers=2, max_seq_len=128, initializer_range=0.4
    ),
    "gptj": lambda: GPTJConfig(
        n_embd=32, n_layer=2, n_head=4, n_positions=128, rotary_dim=4, initializer_range=0.4
    ),
    "gpt_neo": lambda: GPTNeoConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=6,
        max_position_embeddings=128,
        initializer_range=0.4,
    ),
    "codegen": lambda: CodeGenConfig(
        n_embd=32, n_layer=2, n_head=4, n_positions=128, rotary_dim=4, initializer_range=0.4
    ),
    "xglm": lambda: XGLMConfig(
        d_model=32,
        ffn_dim=64,
        num_layers=2,
        attention_heads=4,
        max_position_embeddings=128,
        init_std=0.4,
    ),
    "mamba": lambda: MambaConfig(**_MAMBA),
    "falcon_mamba": lambda: FalconMambaConfig(**_MAMBA),
    "mamba2": lambda: Mamba2Config(**_MAMBA, head_dim=8, num_heads=8, n_groups=2, chunk_size=4),
    "jamba": lambda: JambaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        mamba_d_state=8,
        use_mamba_kernels=False,
        initializer_range=0.4,
    ),
    "t5": lambda: T5Config(**_T5),
    "bart": lambda: BartConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        decoder_start_token_id=2,
        init_std=0.15,
    ),
    "mt5": lambda: MT5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
}
ENCODER_DECODERS = ("t5", "mt5", "bart")
# Whose decoders begin with a second token of their own, such as a language's.
FORCED = {"bart": 5}


def tiny_model(name: str) -> PreTrainedModel:
    """Made anew, in float32, always the same."""
    config = CONFIGS[name]()
    config.vocab_size = VOCABULARY
    config.tie_word_embeddings = False  # or the greediest token is often the last one again
    config.pad_token_id = 0
    config.eos_token_id = None
    torch.manual_seed(11)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    model.generation_config.forced_bos_token_id = FORCED.get(name)
    model.generation_config.forced_eos_token_id = None  # else the last token of any answer
    return model.eval()
