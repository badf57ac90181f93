"""ggml's exponential of a whole row, which sums as it goes: one pass where numpy needs three."""

import ctypes
import math
from collections.abc import Callable
from pathlib import Path

import llama_cpp  # noqa: TID253 - imported by engine modules alone
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
# Writes exp(x - peak) of each x of the first to the last; their sum. Both are contiguous.
ExpSum = Callable[[Floats, float, Floats], float]

_NAME = "ggml_vec_soft_max_f32"
_BLOCK = 512


def exp_sum() -> ExpSum:
    """Ggml's where its library has it and it does what it should, else numpy's."""
    # The function is not in ggml's headers: a version to come may lack it, or mean another.
    for path in sorted((Path(llama_cpp.__file__).parent / "lib").glob("libggml-cpu*")):
        try:
            found = _ggmls(ctypes.CDLL(str(path)))
        except (OSError, AttributeError):
            continue
        if _is_right(found):
            return found
    return numpys


def numpys(values: Floats, peak: float, out: Floats) -> float:
    """The same in numpy: sums of blocks are float32, the sum of these float64."""
    np.subtract(values, np.float32(peak), out=out)
    np.exp(out, out=out)
    whole = len(out) // _BLOCK * _BLOCK
    total = out[:whole].reshape(-1, _BLOCK).sum(axis=1).sum(dtype=np.float64)
    return float(total + out[whole:].sum(dtype=np.float64))


def _ggmls(library: ctypes.CDLL) -> ExpSum:
    function = library[_NAME]
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float)
    function.restype = ctypes.c_double

    def exp_sum(values: Floats, peak: float, out: Floats) -> float:
        return function(len(values), out.ctypes.data, values.ctypes.data, peak)

    return exp_sum


def _is_right(found: ExpSum) -> bool:
    values = np.array([-np.inf, *np.linspace(-90.0, 3.0, 1030)], np.float32)
    made, expected = np.full_like(values, -1.0), np.empty_like(values)
    sums = found(values, 3.0, made), numpys(values, 3.0, expected)
    return math.isclose(*sums, rel_tol=1e-5) and np.allclose(made, expected, rtol=1e-5, atol=1e-36)
