"""The compiled library, where it is there; it computes on torch's own threads."""

import ctypes
import functools
import logging
import zlib
from pathlib import Path
from typing import Final

import torch

_LIBRARY = Path(__file__).with_name("libkernels.so")
_WITHOUT: Final = "torch's own operations compute, which is slower: %s"
_NOT_THERE: Final = (
    "nothing is compiled; install a C compiler (cc), then the package again, and see what pip "
    "install -v says of it"
)
_OF_OTHERS: Final = (
    "what is compiled is of other sources than lie beside it; run backends/torch/hatch_build.py"
)
_log = logging.getLogger(__name__)


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library; None, which the log says once, where torch's own operations have to do.

    That is where it was not compiled, is of another platform, or of other sources than lie here.
    """
    try:
        library = _made_of_these_sources()
    except _UnusableError as error:
        _log.warning(_WITHOUT, error)
        return None
    _share_threads(library)
    return library


def sources() -> int:
    """A checksum of the C beside this, as `hatch_build.py` compiles it in."""
    files = sorted(_LIBRARY.parent.glob("*.[ch]"))
    return zlib.crc32(b"".join(path.read_bytes() for path in files))


class _UnusableError(Exception):
    """Why, and what helps."""


def _made_of_these_sources() -> ctypes.CDLL:
    if not _LIBRARY.exists():
        raise _UnusableError(_NOT_THERE)
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        library.bp_sources.restype = ctypes.c_uint32
    except OSError as error:
        raise _UnusableError(f"{_LIBRARY.name} cannot be loaded: {error}") from error
    except AttributeError as error:
        raise _UnusableError(_OF_OTHERS) from error
    if library.bp_sources() != sources():
        raise _UnusableError(_OF_OTHERS)
    return library


def _share_threads(library: ctypes.CDLL) -> None:
    """Find the pool of whatever OpenMP torch was linked with; what has none computes on a thread.

    A library's symbols are searched for in all that it needs, and `_C` needs all of torch.
    """
    of_torch = ctypes.CDLL(torch._C.__file__)  # noqa: SLF001 -- the one file that is always there
    if hasattr(of_torch, "GOMP_parallel"):
        library.bp_use_threads(of_torch.GOMP_parallel)
