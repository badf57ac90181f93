"""A first look at a file of weights: what is often found in its place, told plainly."""

from pathlib import Path
from typing import Final

from backplane_core.errors import ModelError

DOWNLOAD_AGAIN: Final = "download it again"
START_BYTES: Final = 64

_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def read_start(path: Path) -> bytes:
    """The first `START_BYTES` of a file, fewer where it is shorter.

    Raises:
        ModelError: it is missing, not readable, empty, or a pointer of Git LFS.
    """
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", remedy="check the path and its permissions"
        ) from error
    if not start:
        raise ModelError(f"{path} is empty", remedy=DOWNLOAD_AGAIN)
    if start.startswith(_LFS_POINTER):
        raise ModelError(
            f"{path} is a Git LFS pointer and not the weights themselves",
            remedy="run `git lfs pull` in its folder, or download it again",
        )
    return start
