"""`rows.c` with Python types: a row of logits in a few passes, without the interpreter's lock.

Arrays are float32 and contiguous; weights are padded with 0 to whole lanes.
"""

import ctypes
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

# Weights are read so many at a time.
_LANES = 64

_LIBRARY = Path(__file__).with_name("librows.so")
_POINTER, _INT, _FLOAT, _DOUBLE = (
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_float,
    ctypes.c_double,
)


class NativeRows:
    """The library's functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._highest: Final = library.bp_highest
        self._highest.argtypes, self._highest.restype = (_INT, _POINTER), _FLOAT
        self._weigh: Final = library.bp_weigh
        self._weigh.argtypes = (_INT, _POINTER, _FLOAT, _FLOAT, _POINTER)
        self._weigh.restype = _DOUBLE
        self._exp_sum: Final = library.bp_exp_sum
        self._exp_sum.argtypes, self._exp_sum.restype = (_INT, _POINTER, _FLOAT), _DOUBLE
        self._keep_highest: Final = library.bp_keep_highest
        self._keep_highest.argtypes = (_INT, _POINTER, _DOUBLE, _DOUBLE)
        self._keep_highest.restype = ctypes.c_int
        self._index_at: Final = library.bp_index_at
        self._index_at.argtypes, self._index_at.restype = (_INT, _POINTER, _DOUBLE), _INT
        self._top: Final = library.bp_top
        self._top.argtypes, self._top.restype = (_INT, _POINTER, _INT, _POINTER, _POINTER), None

    @staticmethod
    def _address(row: npt.NDArray[Any]) -> int:
        if not row.flags.c_contiguous:
            raise ValueError("a row of logits lies scattered in memory")
        return row.ctypes.data

    def _padded(self, weights: Floats) -> int:
        if len(weights) % _LANES:
            raise ValueError(f"{len(weights)} weights are not whole lanes of {_LANES}")
        return self._address(weights)

    def highest(self, logits: Floats) -> float:
        """The highest; not a number where one of them is not."""
        return self._highest(len(logits), self._address(logits))

    def weigh(self, logits: Floats, highest: float, factor: float, weights: Floats) -> float:
        """Write exp((logit - highest) * factor) of each; their sum."""
        out = weights.ctypes.data
        return self._weigh(len(logits), self._address(logits), highest, factor, out)

    def exp_sum(self, logits: Floats, highest: float) -> float:
        """The sum of exp(logit - highest)."""
        return self._exp_sum(len(logits), self._address(logits), highest)

    def keep_highest(self, weights: Floats, mass: float, total: float) -> None:
        """Cut all but the fewest and highest that reach `mass` of a sum of `total`."""
        if self._keep_highest(len(weights), self._padded(weights), mass, total):
            raise MemoryError("no memory to sort what lies at the cut")

    def index_at(self, weights: Floats, number: float) -> int:
        """The first at which the cumulative share exceeds `number`."""
        return self._index_at(len(weights), self._padded(weights), number)

    def top(self, logits: Floats, k: int) -> Ids:
        """The k highest, best first, the lowest ids among equals; k is at most all."""
        ids, top = np.empty(k, np.int32), np.empty(k, np.float32)
        self._top(len(logits), self._address(logits), k, self._address(ids), self._address(top))
        return ids


def load() -> NativeRows | None:
    """The library, where it was compiled and is of this platform."""
    try:
        return NativeRows(ctypes.CDLL(str(_LIBRARY)))
    except (OSError, AttributeError):
        return None
