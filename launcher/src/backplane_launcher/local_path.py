"""Paths as people write them, made into paths of this machine."""

from pathlib import Path

from backplane_core.errors import SetupError


def local_path(text: str) -> Path:
    """The path that `text` names, `~` and `~user` being homes.

    Raises:
        SetupError: there is no such home.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise SetupError(
            f"{text} names the home of a user who is not here",
            remedy="write the path from / on",
        ) from error


def is_here(text: str) -> bool:
    """Whether there is a file or folder of that name; not, where it could be none's."""
    try:
        return Path(text).exists()
    except OSError:
        return False  # a name too long for any file, or in a folder that is not for us


def looks_local(text: str) -> bool:
    """Whether it is written as a path, and as nothing on the Hub could be, existing or not."""
    return text.startswith(("/", ".", "~"))
