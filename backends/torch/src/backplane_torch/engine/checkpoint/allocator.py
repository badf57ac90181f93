"""glibc's allocator, told to give back at once what is freed while a model is loaded.

By itself it keeps freed blocks of up to 32 MiB for later ones, so that what converting and merging
tensors leaves behind stays with the process: as much again as the weights, where experts are small.
"""

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

# From malloc.h. A block above the threshold is a mapping of its own, which goes when it is freed.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_WHILE_LOADING: Final = 256 << 10
# Where glibc's own adjustment ends, after the first large block is freed; it ends for good once a
# threshold is set, and a small one would cost every step the mapping of its intermediate results.
_AFTERWARDS: Final = 32 << 20


@contextmanager
def frees_at_once() -> Generator[None]:
    """Within it, freed memory goes back to the system. Does nothing where malloc is not glibc's."""
    library = ctypes.CDLL(None)
    try:
        mallopt, malloc_trim = library.mallopt, library.malloc_trim
    except AttributeError:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _WHILE_LOADING)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _AFTERWARDS)
        mallopt(_M_TRIM_THRESHOLD, 2 * _AFTERWARDS)
        malloc_trim(0)
