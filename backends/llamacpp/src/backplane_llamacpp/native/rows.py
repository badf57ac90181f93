"""`sample.c` with Python types: rows of logits in, tokens and logprobs out.

The interpreter's lock is let go meanwhile.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

_LIBRARY = Path(__file__).with_name("librows.so")
_ALIGNMENT: Final = 64
# Logits that take some 30 microseconds, beside which it is little to have another thread begin.
_WORTH_SHARING: Final = 100_000

# What a row's `status` says.
DONE, NO_TOKEN, NO_MEMORY = 0, 1, 2

_INT32, _INT64, _DOUBLE, _POINTER = (
    ctypes.c_int32,
    ctypes.c_int64,
    ctypes.c_double,
    ctypes.c_void_p,
)


class RowTask(ctypes.Structure):
    """What is asked of a row, and what comes of it: `row_task` of `sample.c`, which tells more.

    Pointers are addresses of arrays that whoever writes them keeps alive; ids in these lie within
    the vocabulary, and no list names one twice.
    """

    _fields_ = (
        ("logits", _POINTER),
        ("watermarked", _INT32),
        ("green_key", ctypes.c_uint32),
        ("green_below", ctypes.c_uint32),
        ("green_bonus", ctypes.c_float),
        ("num_biases", _INT64),
        ("bias_ids", _POINTER),
        ("biases", _POINTER),
        ("repetition_penalty", _DOUBLE),
        ("frequency_penalty", _DOUBLE),
        ("presence_penalty", _DOUBLE),
        ("num_seen", _INT64),
        ("seen_ids", _POINTER),
        ("seen_counts", _POINTER),
        ("num_banned", _INT64),
        ("banned_ids", _POINTER),
        ("num_mask_bytes", _INT64),
        ("mask", _POINTER),
        ("scored", _INT32),
        ("greedy", _INT32),
        ("temperature", _DOUBLE),
        ("top_p", _DOUBLE),
        ("min_p", _DOUBLE),
        ("typical_p", _DOUBLE),
        ("top_k", _INT64),
        ("number", _DOUBLE),
        ("num_top", _INT64),
        ("token", _INT64),
        ("status", _INT64),
        ("logprob", _DOUBLE),
        ("top_ids", _POINTER),
        ("top_logprobs", _POINTER),
    )


class RowSampler:
    """The library, with threads and their room for one vocabulary. One caller at a time."""

    def __init__(self, library: ctypes.CDLL, n_vocab: int, num_threads: int) -> None:
        library.bp_room.argtypes, library.bp_room.restype = (_INT64,), _INT64
        self._sample: Final = library.bp_sample
        self._sample.argtypes = (_INT64, _INT64, _POINTER, _INT32, _POINTER)
        self._sample.restype = None
        self._n_vocab: Final = n_vocab
        self._num_threads: Final = num_threads
        # Pages that nothing is written to are never there.
        self._memory = np.empty(library.bp_room(n_vocab) * num_threads + _ALIGNMENT, np.uint8)
        self._room: Final = -(-self._memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT

    def run(self, addresses: Sequence[int]) -> None:
        """Do the `RowTask`s at these addresses, on more threads than one where that is worth it."""
        if not (num_tasks := len(addresses)):
            return
        tasks = (_POINTER * num_tasks)(*addresses)
        shared = self._n_vocab * num_tasks >= _WORTH_SHARING
        self._sample(
            self._n_vocab,
            num_tasks,
            ctypes.addressof(tasks),
            self._num_threads if shared else 1,
            self._room,
        )


def load() -> ctypes.CDLL | None:
    """The library, where it was compiled and is of this platform."""
    try:
        library = ctypes.CDLL(str(_LIBRARY))
    except OSError:
        return None
    if not hasattr(library, "bp_task_size"):
        return None
    library.bp_task_size.restype = _INT64
    # One of another version of the source would write past what it is given.
    return library if library.bp_task_size() == ctypes.sizeof(RowTask) else None
