"""Names and row order of the tensors in GGUF, against those of a Hugging Face Llama."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}


def gguf_name(name: str) -> str:
    """The GGUF name of a tensor of a Hugging Face Llama."""
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def interleaved(weight: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Rows of a query or key projection in llama.cpp's order.

    Hugging Face rotates the first half of a head against its second half, llama.cpp rotates
    neighbours: row (half, i) of each head moves to row (i, half).
    """
    rows, columns = weight.shape
    heads = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return heads.swapaxes(1, 2).reshape(rows, columns)
