"""The Llama architecture in a page of float64 numpy: what llama.cpp's logits are held to."""

import numpy as np

from tests.llamacpp import tiny_gguf

_EPSILON = 1e-5
_ROPE_BASE = 10000.0


class ReferenceLlama:
    """The tiny model of `tiny_gguf`, computed whole for every token. Slow and plain.

    `deltas` are added to weights, by their names.
    """

    def __init__(
        self,
        shape: tiny_gguf.Shape | None = None,
        *,
        rope_factor: float = 1.0,
        deltas: dict[str, np.ndarray] | None = None,
    ) -> None:
        self._shape = shape or tiny_gguf.Shape()
        self._rope_factor = rope_factor
        num_tokens = len(tiny_gguf.bpe_vocabulary()[0])
        tensors = tiny_gguf.tensors_of(self._shape, num_tokens)
        self._weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
        for name, delta in (deltas or {}).items():
            self._weights[name] = self._weights[name] + delta

    def logits(self, token_ids: list[int]) -> np.ndarray:
        """Logits after each token: (tokens, vocabulary)."""
        state = self._weights["token_embd.weight"][token_ids]
        for layer in range(self._shape.layers):
            state = state + self._attention(layer, state)
            state = state + self._feed_forward(layer, state)
        return self._normalized(state, "output_norm") @ self._weights["output.weight"].T

    def greedy(self, prompt: list[int], count: int) -> tuple[list[int], float]:
        """The greedy continuation, and the least by which a token of it beat the second."""
        token_ids, least = list(prompt), np.inf
        while len(token_ids) < len(prompt) + count:
            row = self.logits(token_ids)[-1]
            second, first = np.sort(row)[-2:]
            least = min(least, first - second)
            token_ids.append(int(row.argmax()))
        return token_ids[len(prompt) :], float(least)

    def _weight(self, layer: int, name: str) -> np.ndarray:
        return self._weights[f"blk.{layer}.{name}.weight"]

    def _normalized(self, state: np.ndarray, name: str) -> np.ndarray:
        scale = np.sqrt((state**2).mean(axis=-1, keepdims=True) + _EPSILON)
        return state / scale * self._weights[f"{name}.weight"]

    def _attention(self, layer: int, state: np.ndarray) -> np.ndarray:
        shape, num = self._shape, len(state)
        head = shape.width // shape.heads
        state = self._normalized(state, f"blk.{layer}.attn_norm")
        query = (state @ self._weight(layer, "attn_q").T).reshape(num, shape.heads, head)
        key = (state @ self._weight(layer, "attn_k").T).reshape(num, shape.kv_heads, head)
        value = (state @ self._weight(layer, "attn_v").T).reshape(num, shape.kv_heads, head)
        group = shape.heads // shape.kv_heads
        key = np.repeat(_rotated(key, self._rope_factor), group, axis=1)
        value = np.repeat(value, group, axis=1)
        query = _rotated(query, self._rope_factor)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(head)
        scores[:, ~np.tri(num, dtype=bool)] = -np.inf
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, value).reshape(num, shape.width)
        return mixed @ self._weight(layer, "attn_output").T

    def _feed_forward(self, layer: int, state: np.ndarray) -> np.ndarray:
        state = self._normalized(state, f"blk.{layer}.ffn_norm")
        gate = state @ self._weight(layer, "ffn_gate").T
        up = state @ self._weight(layer, "ffn_up").T
        return (gate / (1 + np.exp(-gate)) * up) @ self._weight(layer, "ffn_down").T


def _rotated(heads: np.ndarray, factor: float) -> np.ndarray:
    """Rotary positions over neighbouring pairs: (tokens, heads, head) → the same."""
    num, _, size = heads.shape
    positions = np.arange(num) / factor
    angles = np.outer(positions, _ROPE_BASE ** (-np.arange(0, size, 2) / size))[:, None, :]
    even, odd = heads[..., 0::2], heads[..., 1::2]
    result = np.empty_like(heads)
    result[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
    result[..., 1::2] = even * np.sin(angles) + odd * np.cos(angles)
    return result
