"""What `--model-id` names: the demo model, something local, something a backend makes, or the Hub.

Decides without a network; `hub` goes and gets what is on the Hub.
"""

import os
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
from backplane_core.backend import ModelSource
from backplane_core.errors import ModelError

from backplane_launcher.local_path import is_here, local_path, looks_local

DEMO_MODEL_ID: Final = "backplane-demo"

_MAX_FILES: Final = 20_000
_MAX_CONFIG_BYTES: Final = 16 * 2**20
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_BACKEND_ID: Final = re.compile(r"[a-z][a-z0-9_]*:[^/]*")


@dataclass(frozen=True, kw_only=True)
class HubId:
    """A repository on the Hub that must still be asked for and downloaded."""

    model_id: str
    repository: str
    variant: str | None
    revision: str | None
    gguf_file: str | None


def locate(
    model_id: str | None, *, revision: str | None, gguf_file: str | None
) -> ModelSource | HubId:
    """Find a model by its id; None is the demo model.

    Raises:
        ModelError: nothing local has that name and it is no Hub id, a folder cannot be read, or
            its config.json is broken.
        SetupError: it lies in the home of nobody.
    """
    if model_id is None or model_id == DEMO_MODEL_ID:
        return _demo(gguf_file)
    if model_id and (found := _local(model_id, gguf_file)) is not None:
        return found
    if _BACKEND_ID.fullmatch(model_id):
        return ModelSource(model_id=model_id, revision=revision, gguf_file=gguf_file)
    repository, _, variant = model_id.partition(":")
    if not _HUB_ID.fullmatch(repository) or _is_path(model_id):
        raise ModelError(
            f"model {model_id!r} is neither a file or folder here nor a Hub id",
            remedy="check the path, or write a Hub id such as owner/name or owner/name:Q4_K_M",
        )
    return HubId(
        model_id=model_id,
        repository=repository,
        variant=variant or None,
        revision=revision,
        gguf_file=gguf_file,
    )


def from_folder(folder: str, model_id: str | None, *, gguf_file: str | None) -> ModelSource:
    """The model that lies in `folder` whole, under the name `model_id`; nothing is downloaded.

    Raises:
        ModelError: there is no such folder, or it cannot be read.
    """
    path = local_path(folder)
    if not _kind(path)[0]:
        raise ModelError(
            f"--weights-cache-override {folder} is no folder",
            remedy="name one that holds the model's files, or leave it out",
        )
    name = model_id or path.resolve().name
    variant = None if is_here(name) else name.partition(":")[2] or None
    return _folder(name, path, variant, gguf_file)


def read_config(path: Path) -> dict[str, Any]:
    """The parsed `config.json` at `path`; empty where there is none.

    Raises:
        ModelError: it is not a JSON object.
    """
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ModelError(
                f"{path} is too large to be a model's configuration",
                remedy="name the model's own folder",
            )
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(
            f"{path} cannot be read as a model's configuration: {error}",
            remedy="repair or remove it",
        ) from error


def _demo(gguf_file: str | None) -> ModelSource:
    folder = Path(str(files("backplane_launcher") / "demo_model"))
    source = _folder(DEMO_MODEL_ID, folder, None, gguf_file) if folder.is_dir() else None
    if source is None or not any(name.endswith((".gguf", ".safetensors")) for name in source.files):
        raise ModelError(
            "the demo model is not in this installation",
            remedy="reinstall backplane-launcher, or name a model with --model-id",
        )
    return source


def _local(model_id: str, gguf_file: str | None) -> ModelSource | None:
    for text, variant in ((model_id, None), _split_variant(model_id)):
        path = local_path(text)
        is_folder, is_file = _kind(path)
        if is_folder:
            return _folder(model_id, path, variant, gguf_file)
        if is_file and variant is None:
            return ModelSource(
                model_id=model_id,
                files=(path.name,),
                # Not the file itself resolved: in a download cache that is a blob with no suffix.
                path=str(path.parent.resolve() / path.name),
                gguf_file=gguf_file,
            )
    return None


def _kind(path: Path) -> tuple[bool, bool]:
    """Whether it is a folder, and whether it is a file."""
    try:
        return path.is_dir(), path.is_file()
    except OSError as error:  # a name too long for any file, or in a folder that is not for us
        _raise_unreadable(error)


def _split_variant(model_id: str) -> tuple[str, str | None]:
    path, colon, variant = model_id.rpartition(":")
    return (path, variant) if colon and path and variant else (model_id, None)


def _folder(model_id: str, folder: Path, variant: str | None, gguf_file: str | None) -> ModelSource:
    names: list[str] = []
    for directory, subdirectories, found in os.walk(folder, onerror=_raise_unreadable):
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        names += [Path(directory, name).relative_to(folder).as_posix() for name in sorted(found)]
        if len(names) > _MAX_FILES:
            raise ModelError(
                f"{folder} holds more than {_MAX_FILES} files, so it is no model's folder",
                remedy="name the model's own folder",
            )
    return ModelSource(
        model_id=model_id,
        files=tuple(names),
        path=str(folder.resolve()),
        variant=variant,
        gguf_file=gguf_file,
        config=read_config(folder / "config.json"),
    )


def _raise_unreadable(error: OSError) -> NoReturn:
    raise ModelError(
        f"{error.filename} cannot be read: {error.strerror}", remedy="check its permissions"
    ) from error


def _is_path(model_id: str) -> bool:
    return looks_local(model_id) or model_id.lower().endswith(".gguf")
