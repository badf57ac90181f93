"""ggml's flash attention on the CPU, called by itself, and by its definition in float64."""

import ctypes
import dataclasses

import numpy as np

from tests.llamacpp.ggml_operations import TENSOR, WORK_BYTES, Floats, Kind, context_of, function

_FLOAT = ctypes.c_float
_attention = function(
    *("ggml_flash_attn_ext", TENSOR, ctypes.c_void_p),
    *(TENSOR, TENSOR, TENSOR, TENSOR, _FLOAT, _FLOAT, _FLOAT),
)
_add_sinks = function("ggml_flash_attn_ext_add_sinks", None, TENSOR, TENSOR)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """What is asked of the operation.

    Shapes: q (streams, heads, queries, DK), k (streams, kv heads, cells, DK), v the same with DV,
    mask (1 or streams, 1 or heads, queries, cells), sinks (heads). The mask is added to scores.
    """

    q: Floats
    k: Floats
    v: Floats
    mask: Floats | None
    sinks: Floats | None = None
    scale: float = 1.0
    max_bias: float = 0.0
    softcap: float = 0.0


def computed(
    asked: Attention, *, kind: Kind, value_kind: Kind, num_threads: int, by_token: bool
) -> Floats:
    """What ggml answers, with keys and values of these kinds: (streams, heads, queries, DV)."""
    streams, heads, queries, _ = asked.q.shape
    arrays = (asked.q, asked.k, asked.v, asked.mask, asked.sinks)
    num_values = sum(array.size for array in arrays if array is not None)
    shape = (streams, queries, heads, asked.v.shape[-1])
    with context_of(4 * (num_values + int(np.prod(shape))) + WORK_BYTES) as context:
        made = context.by_token if by_token else context.tensor
        result = _attention(
            *(context.handle, made(asked.q, "f32"), made(asked.k, kind), made(asked.v, value_kind)),
            None if asked.mask is None else context.tensor(asked.mask, "f16"),
            *(asked.scale, asked.max_bias, asked.softcap),
        )
        if asked.sinks is not None:
            _add_sinks(result, context.tensor(asked.sinks, "f32"))
        return context.compute(result, shape, num_threads).swapaxes(1, 2)


def slopes(heads: int, max_bias: float) -> Floats:
    """ALiBi: by how much the mask counts in each head; a geometric series in both halves."""
    if max_bias == 0:
        return np.ones(heads)
    whole = 1 << (heads.bit_length() - 1)  # the largest power of two among the head counts
    exponents = [index + 1 for index in range(whole)]
    exponents += [index + 0.5 for index in range(heads - whole)]
    return 2.0 ** (-max_bias / whole * np.array(exponents))


def expected(asked: Attention) -> Floats:
    """The same by its definition. A query that attends to nothing gets zeros."""
    streams, heads, queries, _ = asked.q.shape
    kv_heads = asked.k.shape[1]
    mask = np.zeros((1, 1, queries, asked.k.shape[2])) if asked.mask is None else asked.mask
    seen = np.isfinite(mask).any(axis=(0, 1, 2))  # the rest has no weight, and takes its time
    # The heads that share a kv head are as many more queries.
    together = (streams, kv_heads, heads // kv_heads * queries)
    scores = asked.q.reshape(*together, -1) @ asked.k[:, :, seen].swapaxes(-1, -2) * asked.scale
    if asked.softcap:
        scores = asked.softcap * np.tanh(scores / asked.softcap)
    scores = scores.reshape(streams, heads, queries, seen.sum())
    scores = scores + slopes(heads, asked.max_bias)[:, None, None] * mask[..., seen]
    sinks = np.full(heads, -np.inf) if asked.sinks is None else asked.sinks
    sinks = np.broadcast_to(sinks[:, None, None], (streams, heads, queries, 1))
    largest = np.maximum(scores.max(axis=-1, keepdims=True, initial=-np.inf), sinks)
    largest = np.where(np.isfinite(largest), largest, 0.0)
    weights = np.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True) + np.exp(sinks - largest)
    weights = weights / np.where(total == 0, 1.0, total)
    answer = weights.reshape(*together, seen.sum()) @ asked.v[:, :, seen]
    return answer.reshape(streams, heads, queries, -1)
