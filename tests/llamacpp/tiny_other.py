"""Tiny models whose memory is not plain attention: a running state, and a sliding window."""

from pathlib import Path

import gguf
import numpy as np

from tests.llamacpp import tiny_gguf

WIDTH, LAYERS, CONTEXT, WINDOW = 32, 2, 512, 16


def write_mamba(path: Path) -> Path:
    """A Mamba model: its state cannot be turned back."""
    inner, state, kernel, rank = 2 * WIDTH, 8, 4, 4
    writer = gguf.GGUFWriter(path, "mamba")
    num_tokens = tiny_gguf.write_vocabulary(writer, "bpe")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(LAYERS)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    weights = _Weights(2)
    tensors = {
        "token_embd.weight": weights(num_tokens, WIDTH),
        "output_norm.weight": np.ones(WIDTH, np.float32),
        "output.weight": weights(num_tokens, WIDTH) * 3,
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        tensors |= {
            block + "attn_norm.weight": np.ones(WIDTH, np.float32),
            block + "ssm_in.weight": weights(2 * inner, WIDTH),
            block + "ssm_conv1d.weight": weights(inner, kernel),
            block + "ssm_conv1d.bias": np.zeros(inner, np.float32),
            block + "ssm_x.weight": weights(rank + 2 * state, inner),
            block + "ssm_dt.weight": weights(inner, rank),
            block + "ssm_dt.bias": np.zeros(inner, np.float32),
            block + "ssm_a": -np.ones((inner, state), np.float32) * np.arange(1, state + 1) / state,
            block + "ssm_d": np.ones(inner, np.float32),
            block + "ssm_out.weight": weights(WIDTH, inner),
        }
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.astype(np.float32))
    tiny_gguf.flush(writer)
    return path


def write_sliding_window(path: Path) -> Path:
    """A Gemma 2 model: every other layer sees only the last few tokens."""
    heads, kv_heads, head, feed_forward = 4, 2, 8, 64
    writer = gguf.GGUFWriter(path, "gemma2")
    num_tokens = tiny_gguf.write_vocabulary(writer, "bpe")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    writer.add_sliding_window(WINDOW)
    weights = _Weights(3)
    ones = np.ones(WIDTH, np.float32)
    tensors = {"token_embd.weight": weights(num_tokens, WIDTH), "output_norm.weight": ones}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        tensors |= {
            block + "attn_norm.weight": ones,
            block + "attn_q.weight": weights(heads * head, WIDTH) * 2,
            block + "attn_k.weight": weights(kv_heads * head, WIDTH) * 2,
            block + "attn_v.weight": weights(kv_heads * head, WIDTH) * 2,
            block + "attn_output.weight": weights(WIDTH, heads * head) * 2,
            block + "post_attention_norm.weight": ones,
            block + "ffn_norm.weight": ones,
            block + "ffn_gate.weight": weights(feed_forward, WIDTH),
            block + "ffn_up.weight": weights(feed_forward, WIDTH),
            block + "ffn_down.weight": weights(WIDTH, feed_forward),
            block + "post_ffw_norm.weight": ones,
        }
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.astype(np.float32))
    tiny_gguf.flush(writer)
    return path


class _Weights:
    """Random matrices of rows of length about 1, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, rows: int, columns: int) -> np.ndarray:
        return self._random.standard_normal((rows, columns)) / np.sqrt(columns)
