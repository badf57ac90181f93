"""`NativeAttention`: paged attention by the compiled loops of `native/attention.c`.

They read keys and values where they lie. Each layer's cache is in the order in which they do.
"""

import ctypes
import dataclasses
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch

from backplane_torch.engine.devices.attention import AttentionKernel, AttentionShape, Stretch
from backplane_torch.engine.devices.native import library

# As `attention.c` has them.
_GROUP: Final = 16
_MAX_ROWS: Final = 32
# What vectors read behind the last value.
_SLACK: Final = 32
_KINDS: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_CELL_BYTES: Final = 4

Numbers = npt.NDArray[np.int64]


class _Strides(ctypes.Structure):
    """`Strides` of `attention.h`."""

    _fields_: ClassVar = [("head", ctypes.c_int64), ("token", ctypes.c_int64)]


class _Attention(ctypes.Structure):
    """`Attention` of `attention.h`."""

    _fields_: ClassVar = [
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *(
            (name, ctypes.c_int64)
            for name in (
                *("num_blocks", "block_size", "num_kv_heads", "sharing"),
                *("key_width", "value_width", "window"),
            )
        ),
        *((name, ctypes.c_float) for name in ("scaling", "softcap")),
        ("stretches", ctypes.c_void_p),
        ("num_stretches", ctypes.c_int64),
        ("tiles", ctypes.c_void_p),
        ("num_tiles", ctypes.c_int64),
        ("tables", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("query", "key", "value")),
        *((f"{name}_strides", _Strides) for name in ("query", "key", "value")),
        *((name, ctypes.c_void_p) for name in ("sinks", "output")),
    ]


@dataclasses.dataclass(frozen=True)
class NativeCache:
    """A layer's keys and values; the order of the numbers is `attention.h`'s. One caller at a time.

    Attributes:
        keys, values: [kv heads, blocks, numbers of a block].
        task: what does not change from step to step is told in it, the rest written by each call.
    """

    keys: torch.Tensor
    values: torch.Tensor
    task: _Attention


class NativePlan:
    """What a step computes.

    Attributes:
        stretches: [stretches, 4], a `Stretch` of `attention.h` in each row.
        tables: all block tables, one behind the other.
    """

    def __init__(self, stretches: Numbers, tables: Numbers) -> None:
        self.stretches: Final = stretches
        self.tables: Final = tables
        self._tiles: Final[dict[int, Numbers]] = {}

    def tiles(self, sharing: int) -> Numbers:
        """Rows that are attended together, where so many query heads share a key head.

        They are `Tile`s: [tiles, 3]. Made once for all layers that share as many.
        """
        if sharing not in self._tiles:
            self._tiles[sharing] = _tiles(self.stretches[:, 1] * sharing)
        return self._tiles[sharing]


class NativeAttention(AttentionKernel[NativeCache, NativePlan]):
    """For one dtype and block size; see `computes`."""

    def __init__(self, compiled: ctypes.CDLL, dtype: torch.dtype, block_size: int) -> None:
        self._attend: Any = getattr(compiled, f"bp_attend_{_KINDS[dtype]}")
        self._attend.argtypes = [ctypes.POINTER(_Attention)]
        self._attend.restype = None
        self._dtype = dtype
        self._block_size = block_size

    def create_cache(self, shape: AttentionShape, num_blocks: int) -> NativeCache:
        """Memory that nobody has written to: the system counts its pages when they are used."""
        per_cell = _CELL_BYTES // self._dtype.itemsize
        key_width = -(-shape.key_width // per_cell) * per_cell
        keys, values = (
            self._memory(shape.num_kv_heads, num_blocks, self._block_size * width)
            for width in (key_width, shape.value_width)
        )
        task = _Attention(
            keys=keys.data_ptr(),
            values=values.data_ptr(),
            num_blocks=num_blocks,
            block_size=self._block_size,
            num_kv_heads=shape.num_kv_heads,
            sharing=shape.num_query_heads // shape.num_kv_heads,
            key_width=shape.key_width,
            value_width=shape.value_width,
            window=shape.window or 0,
            scaling=shape.scaling,
            softcap=shape.softcap or 0.0,
        )
        return NativeCache(keys, values, task)

    def plan(self, stretches: list[Stretch], num_decodes: int, window: int | None) -> NativePlan:
        """Where tokens go and what they see follow from positions; a decode is a stretch of one."""
        del num_decodes, window
        lengths = [len(stretch.block_table) for stretch in stretches]
        begins = np.cumsum([0, *lengths])
        rows = [
            (stretch.begin, stretch.num_tokens, stretch.start, begin)
            for stretch, begin in zip(stretches, begins.tolist(), strict=False)
        ]
        tables = [block for stretch in stretches for block in stretch.block_table]
        return NativePlan(
            stretches=np.array(rows, np.int64).reshape(-1, 4), tables=np.array(tables, np.int64)
        )

    def attend(
        self,
        shape: AttentionShape,
        cache: NativeCache,
        plan: NativePlan,
        *,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """See `AttentionKernel`.

        Raises:
            ValueError: the layer gives other types than the cache's, which would be misread.
        """
        if {query.dtype, key.dtype, value.dtype} != {self._dtype}:
            raise ValueError(
                f"queries of {query.dtype}, keys of {key.dtype} and values of {value.dtype} for a "
                f"cache of {self._dtype}"
            )
        task = cache.task
        output = query.new_empty(query.shape[1], shape.num_query_heads, shape.value_width)
        tiles = plan.tiles(task.sharing)
        task.stretches, task.num_stretches = plan.stretches.ctypes.data, len(plan.stretches)
        task.tiles, task.num_tiles = tiles.ctypes.data, len(tiles)
        task.tables = plan.tables.ctypes.data
        # Named as long as they are read: what is made contiguous here is nobody else's.
        query, key, value = (
            one if one.stride(-1) == 1 else one.contiguous() for one in (query, key, value)
        )
        task.query, task.key, task.value = query.data_ptr(), key.data_ptr(), value.data_ptr()
        task.query_strides = query.stride()[:2]
        task.key_strides = key.stride()[:2]
        task.value_strides = value.stride()[:2]
        scores = None if sinks is None else sinks.float().contiguous()
        task.sinks = None if scores is None else scores.data_ptr()
        task.output = output.data_ptr()
        self._attend(task)
        return output

    def _memory(self, *size: int) -> torch.Tensor:
        count = int(np.prod(size))
        slack = _SLACK * _CELL_BYTES // self._dtype.itemsize
        return torch.empty(count + slack, dtype=self._dtype)[:count].view(size)


def computes(compiled: ctypes.CDLL, dtype: torch.dtype, block_size: int) -> bool:
    """Whether this processor has what the loops take, and blocks are of whole groups."""
    kind = _KINDS.get(dtype)
    if kind is None or block_size % _GROUP:
        return False
    return bool(getattr(compiled, f"bp_attends_{kind}")())


def native_attention(dtype: torch.dtype, block_size: int) -> NativeAttention | None:
    """The compiled attention, where it is there for that type and block size."""
    compiled = library.load()
    if compiled is None or not computes(compiled, dtype, block_size):
        return None
    return NativeAttention(compiled, dtype, block_size)


def _tiles(num_rows: Numbers) -> Numbers:
    """Each stretch's rows, `_MAX_ROWS` at a time: stretch, first row, how many.

    The longest stretches come first, so that no thread begins with much when others are done.
    """
    order = np.argsort(-num_rows, kind="stable")
    counts = -(-num_rows[order] // _MAX_ROWS)
    stretches = np.repeat(order, counts)
    places = np.arange(len(stretches)) - np.repeat(np.cumsum(counts) - counts, counts)
    firsts = places * _MAX_ROWS
    sizes = np.minimum(_MAX_ROWS, num_rows[stretches] - firsts)
    return np.stack([stretches, firsts, sizes], axis=1)
