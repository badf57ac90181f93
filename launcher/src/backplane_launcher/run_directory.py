"""The launcher's private folder: control and worker sockets, and children's documents."""

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from backplane_core.errors import SetupError

_PREFIX: Final = "backplane-"
_UNLOCKED_PREFIX: Final = ".backplane-"
_PRIVATE: Final = 0o700
# A name nobody else gives a file: a sweep removes the folder around it.
_LOCK: Final = "backplane-launcher.lock"
# A Unix socket's path holds 107 bytes; the longest name in here is a worker's.
_MAX_FOLDER_BYTES: Final = 107 - len("/worker-9999-99999.sock")


class RunDirectory:
    """Made with mode 0700, removed at exit; leavings of launchers that were killed are swept."""

    def __init__(self, environ_runtime_dir: str | None) -> None:
        parent = _parent(environ_runtime_dir)
        _sweep(parent)
        try:
            unlocked = Path(tempfile.mkdtemp(prefix=_UNLOCKED_PREFIX, dir=parent))
            # Held for as long as this process lives, however it ends.
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
            self._lock = os.open(unlocked / _LOCK, flags, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only now may another launcher's sweep see it.
            self.path = unlocked.rename(parent / unlocked.name.replace(_UNLOCKED_PREFIX, _PREFIX))
            self.metrics.mkdir(mode=_PRIVATE)
        except OSError as error:
            raise SetupError(
                f"no folder can be made in {parent}: {error.strerror}",
                remedy="free some space there, or set TMPDIR to a folder that can be written",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    @property
    def metrics(self) -> Path:
        """The folder in which the servers keep their counts together."""
        return self.path / "metrics"

    def write_document(self, name: str, document: msgspec.Struct) -> Path:
        """Write a launch document that only this user can read."""
        path = self.path / f"{name}.json"
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(document))
        return path


def _parent(environ_runtime_dir: str | None) -> Path:
    if environ_runtime_dir and _is_fit(environ_runtime_dir):
        return Path(environ_runtime_dir)
    try:
        temporary = tempfile.gettempdir()  # tries which can be written, /tmp among them
    except FileNotFoundError as error:
        raise SetupError(
            "no folder for temporary files can be written",
            remedy="mount an emptyDir on /tmp, or set TMPDIR",
        ) from error
    fit = (place for place in (temporary, "/tmp") if _is_fit(place))  # noqa: S108 - only a parent; mkdtemp is private
    return Path(next(fit, temporary))


def _is_fit(folder: str) -> bool:
    """Whether it can be written, and a socket's path that begins so is short enough."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    return len(os.fsencode(folder)) + len(f"/{_PREFIX}12345678") <= _MAX_FOLDER_BYTES


def _sweep(parent: Path) -> None:
    for leftover in parent.glob(f"{_PREFIX}*"):
        try:
            status = leftover.lstat()
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != _PRIVATE:
                continue
            descriptor = os.open(leftover / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # not a launcher's folder, or one that is just being made
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except BlockingIOError:
            pass  # its launcher lives
        finally:
            os.close(descriptor)
