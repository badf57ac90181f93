"""ggml's flash attention on the CPU, called by itself, and the same by its definition in float64.

The library is the one the backend computes with: `LLAMA_CPP_LIB_PATH` names another build of it.
"""

import contextlib
import ctypes
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import backplane_llamacpp.native  # noqa: F401 -- sets what libgomp reads, then loads the library
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp  # noqa: TID253 -- of the tests, only those of this backend load it

Kind = Literal["f32", "f16", "bf16", "q8_0"]
Floats = npt.NDArray[np.float64]

BLOCK = 32
"""Elements of a q8_0 block, which share a scale."""

_TYPES: dict[Kind, int] = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8}
_GRID_STEPS = 2.0 ** np.arange(-8, -5)
_WORK_BYTES = 16 << 20
_TENSOR = ctypes.c_void_p
_INT, _FLOAT = ctypes.c_int, ctypes.c_float


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def _function(name: str, result: Any, *arguments: Any) -> Any:
    # ggml's functions are found through libllama, which depends on it: the very library it uses.
    return ctypes.CFUNCTYPE(result, *arguments)((name, llama_cpp._lib))


_init = _function("ggml_init", ctypes.c_void_p, _InitParams)
_free = _function("ggml_free", None, ctypes.c_void_p)
_new_tensor = _function(
    *("ggml_new_tensor_4d", _TENSOR, ctypes.c_void_p, _INT),
    *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
)
_permute = _function("ggml_permute", _TENSOR, ctypes.c_void_p, _TENSOR, _INT, _INT, _INT, _INT)
_num_bytes = _function("ggml_nbytes", ctypes.c_size_t, _TENSOR)
_address = _function("ggml_get_data", ctypes.c_void_p, _TENSOR)
_attention = _function(
    *("ggml_flash_attn_ext", _TENSOR, ctypes.c_void_p),
    *(_TENSOR, _TENSOR, _TENSOR, _TENSOR, _FLOAT, _FLOAT, _FLOAT),
)
_add_sinks = _function("ggml_flash_attn_ext_add_sinks", None, _TENSOR, _TENSOR)
_new_graph = _function("ggml_new_graph", ctypes.c_void_p, ctypes.c_void_p)
_build = _function("ggml_build_forward_expand", None, ctypes.c_void_p, _TENSOR)
_compute = _function(
    "ggml_graph_compute_with_ctx", _INT, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
)


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


def on_grid(rng: np.random.Generator, shape: tuple[int, ...], *, full: bool = False) -> Floats:
    """Random values that every kind holds exactly: seven bits times a power of two a block.

    `full`: each block has a value of 127 steps, by which ggml, too, finds that power: it brings
    queries to q8_0 before it multiplies them with keys that are.
    """
    num_blocks = -(-shape[-1] // BLOCK)
    blocks = (*shape[:-1], num_blocks, BLOCK)
    values = rng.integers(-127, 128, size=blocks, dtype=np.int8).astype(np.float64)
    if full:
        values[..., 0] = 127
    values *= _GRID_STEPS[rng.integers(0, len(_GRID_STEPS), size=(*blocks[:-1], 1))]
    return values.reshape(*shape[:-1], num_blocks * BLOCK)[..., : shape[-1]]


def _stored(values: Floats, kind: Kind) -> npt.NDArray[np.uint8]:
    """The bytes of rows of values from `on_grid`; lossless, or it fails."""
    if kind in {"f32", "f16"}:
        plain = values.astype(np.float32 if kind == "f32" else np.float16)
        assert np.array_equal(plain, values, equal_nan=True)
        return plain.view(np.uint8).ravel()
    if kind == "bf16":
        halves = values.astype(np.float32).view(np.uint16).reshape(-1, 2)  # the lower one first
        assert not halves[:, 0].any()
        return halves[:, 1].copy().view(np.uint8)
    blocks = values.reshape(-1, BLOCK)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    scales = 2.0 ** np.ceil(np.log2(np.maximum(largest, 2.0**-14) / 127))
    rows = np.empty(len(blocks), dtype=[("scale", np.float16), ("steps", np.int8, BLOCK)])
    rows["scale"], rows["steps"] = scales[:, 0], blocks / scales
    assert np.array_equal(rows["scale"][:, None] * rows["steps"].astype(np.float64), blocks)
    return rows.view(np.uint8).ravel()


class _Context:
    """A ggml context and its tensors, in memory of ours."""

    def __init__(self, num_bytes: int) -> None:
        self._memory = np.empty(num_bytes, dtype=np.uint8)
        address = self._memory.ctypes.data
        self.handle = _init(_InitParams(num_bytes, address, False))

    def tensor(self, values: Floats, kind: Kind) -> Any:
        """A contiguous tensor; ggml names dimensions from the innermost on."""
        sizes = (1,) * (4 - values.ndim) + values.shape
        tensor = _new_tensor(self.handle, _TYPES[kind], *reversed(sizes))
        data = _stored(values, kind)
        assert _num_bytes(tensor) == data.nbytes
        ctypes.memmove(_address(tensor), data.ctypes.data, data.nbytes)
        return tensor

    def by_token(self, values: Floats, kind: Kind) -> Any:
        """The same elements as `tensor`, where a token's heads lie side by side, as in a cache."""
        return _permute(self.handle, self.tensor(values.swapaxes(1, 2), kind), 0, 2, 1, 3)


@contextlib.contextmanager
def _context(num_bytes: int) -> Iterator[_Context]:
    context = _Context(num_bytes)
    try:
        yield context
    finally:
        _free(context.handle)


def computed(
    asked: Attention, *, kind: Kind, value_kind: Kind, num_threads: int, by_token: bool
) -> Floats:
    """What ggml answers, with keys and values of these kinds: (streams, heads, queries, DV)."""
    streams, heads, queries, _ = asked.q.shape
    arrays = (asked.q, asked.k, asked.v, asked.mask, asked.sinks)
    num_values = sum(array.size for array in arrays if array is not None)
    shape = (streams, queries, heads, asked.v.shape[-1])
    with _context(4 * (num_values + int(np.prod(shape))) + _WORK_BYTES) as context:
        made = context.by_token if by_token else context.tensor
        result = _attention(
            *(context.handle, made(asked.q, "f32"), made(asked.k, kind), made(asked.v, value_kind)),
            None if asked.mask is None else context.tensor(asked.mask, "f16"),
            *(asked.scale, asked.max_bias, asked.softcap),
        )
        if asked.sinks is not None:
            _add_sinks(result, context.tensor(asked.sinks, "f32"))
        graph = _new_graph(context.handle)
        _build(graph, result)
        assert _compute(context.handle, graph, num_threads) == 0
        floats = (ctypes.c_float * int(np.prod(shape))).from_address(_address(result))
        answer = np.array(floats, dtype=np.float64)
    return answer.reshape(shape).swapaxes(1, 2)


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
