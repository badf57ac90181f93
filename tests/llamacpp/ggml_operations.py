"""ggml's operations on the CPU, called by themselves, on tensors in memory of ours.

The library is the one the backend computes with: `LLAMA_CPP_LIB_PATH` names another build of it.
"""

import contextlib
import ctypes
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
WORK_BYTES = 16 << 20
"""What a context has beside the values of its tensors."""

TENSOR = ctypes.c_void_p
"""A pointer to one, of which only ggml knows more."""

_INT, _LONG, _SIZE = ctypes.c_int, ctypes.c_int64, ctypes.c_size_t


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def function(name: str, result: Any, *arguments: Any) -> Any:
    """One of ggml's: found through libllama, which depends on it: the very library it uses."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, llama_cpp._lib))


_init = function("ggml_init", ctypes.c_void_p, _InitParams)
_free = function("ggml_free", None, ctypes.c_void_p)
_new_tensor = function(
    *("ggml_new_tensor_4d", TENSOR, ctypes.c_void_p, _INT, _LONG, _LONG, _LONG, _LONG)
)
_view = function(*("ggml_view_2d", TENSOR, ctypes.c_void_p, TENSOR, _LONG, _LONG, _SIZE, _SIZE))
_permute = function("ggml_permute", TENSOR, ctypes.c_void_p, TENSOR, _INT, _INT, _INT, _INT)
_num_bytes = function("ggml_nbytes", _SIZE, TENSOR)
_address = function("ggml_get_data", ctypes.c_void_p, TENSOR)
_new_graph = function("ggml_new_graph", ctypes.c_void_p, ctypes.c_void_p)
_build = function("ggml_build_forward_expand", None, ctypes.c_void_p, TENSOR)
_compute = function(
    "ggml_graph_compute_with_ctx", _INT, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
)


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


class Context:
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

    def between_others(self, values: Floats, kind: Kind) -> Any:
        """The same rows as `tensor`, of a matrix in which another row follows each."""
        rows, columns = values.shape
        tensor = self.tensor(np.stack((values, -values), axis=1), kind)
        return _view(self.handle, tensor, columns, rows, 2 * (_num_bytes(tensor) // (2 * rows)), 0)

    def compute(self, result: Any, shape: tuple[int, ...], num_threads: int) -> Floats:
        """The values of an operation's result, which has `shape`, outermost dimension first."""
        graph = _new_graph(self.handle)
        _build(graph, result)
        assert _compute(self.handle, graph, num_threads) == 0
        floats = (ctypes.c_float * int(np.prod(shape))).from_address(_address(result))
        return np.array(floats, dtype=np.float64).reshape(shape)


@contextlib.contextmanager
def context_of(num_bytes: int) -> Iterator[Context]:
    """A context with that much memory for tensors, their values and what operations work in."""
    context = Context(num_bytes)
    try:
        yield context
    finally:
        _free(context.handle)
