"""A first look at a file, before llama.cpp does, whose own complaint is harder to read."""

from pathlib import Path

from backplane_core.errors import ModelError

_MAGIC = b"GGUF"


def check_file(path: Path) -> None:
    """Whether this may be a model.

    Raises:
        ModelError: it is not there, not readable, or no GGUF.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    if magic != _MAGIC:
        raise ModelError(
            f"{path} is no GGUF file: it begins with {magic!r}",
            remedy="download it again; a Git LFS pointer or an error page may have been saved",
        )
