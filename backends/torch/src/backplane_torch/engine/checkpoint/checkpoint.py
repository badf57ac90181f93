"""All tensors of a model on disk, by name: one file, or several with or without an index."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec
import torch
from backplane_core.backend import ModelSource
from backplane_core.errors import ModelError

from backplane_torch.engine.checkpoint.file_start import DOWNLOAD_AGAIN, read_start
from backplane_torch.engine.checkpoint.pickled_file import read_pickled
from backplane_torch.engine.checkpoint.safetensors_file import read_safetensors
from backplane_torch.engine.checkpoint.stored_tensor import StoredTensor
from backplane_torch.model_files import Weights, choose_weights, parts_of

ALLOW_PICKLE: Final = "--torch.allow-pickle"


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A model's tensors where they lie. Nothing is open.

    Attributes:
        path: what lists the tensors: the one file, the index, or the folder.
        tensors: by the checkpoint's names.
    """

    path: Path
    tensors: dict[str, StoredTensor]

    @property
    def num_bytes(self) -> int:
        """All tensors together."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that most of it is stored in; float32 where there is none."""
        num_bytes: Counter[torch.dtype] = Counter()
        for tensor in self.tensors.values():
            if tensor.dtype.is_floating_point:
                num_bytes[tensor.dtype] += tensor.num_bytes
        return num_bytes.most_common(1)[0][0] if num_bytes else torch.float32


def local_folder(source: ModelSource) -> Path:
    """Where the model's files lie: `source.path`, or the folder of the file that it names.

    Raises:
        ModelError: nothing is there.
    """
    path = Path(source.path or source.model_id)
    if not path.exists():
        raise ModelError(f"there is no file or folder {path}", remedy="check the path")
    return path if path.is_dir() else path.parent


def open_checkpoint(source: ModelSource, *, allow_pickle: bool) -> Checkpoint:
    """Read and check all headers of a local model: that everything is there, once, and whole.

    Raises:
        ModelError: something is missing, damaged or there twice, or the weights are pickles and
            `allow_pickle` is false. The message names the file, and the tensor if it is one's.
    """
    folder = local_folder(source)
    weights = _find_weights(source, folder)
    if weights.pickled and not allow_pickle:
        raise ModelError(
            f"{folder / weights.files[0]} is a pickle, and there are no safetensors",
            remedy=f"choose a model with safetensors, or have pickles read with {ALLOW_PICKLE}",
        )
    read = read_pickled if weights.pickled else read_safetensors
    if weights.index is not None:
        return _open_indexed(folder / weights.index, read)
    tensors: dict[str, StoredTensor] = {}
    for file in weights.files:
        _add(tensors, read(folder / file))
    return Checkpoint(folder / weights.files[0] if len(weights.files) == 1 else folder, tensors)


def _find_weights(source: ModelSource, folder: Path) -> Weights:
    names = [entry.name for entry in folder.iterdir()]
    if (path := Path(source.path or source.model_id)).is_file():
        return parts_of(path.name, names)
    return choose_weights(str(folder), names)


def _open_indexed(index: Path, read: Callable[[Path], dict[str, StoredTensor]]) -> Checkpoint:
    places = _read_index(index)
    tensors: dict[str, StoredTensor] = {}
    for file in dict.fromkeys(places.values()):
        _add(tensors, read(index.parent / file))
    for name, file in places.items():
        if name not in tensors or tensors[name].path.name != file:
            raise ModelError(
                f"{index.parent / file} lacks tensor {name}, which {index.name} says is in it",
                remedy=DOWNLOAD_AGAIN,
            )
    return Checkpoint(index, tensors)


def _read_index(index: Path) -> dict[str, str]:
    """Which file each tensor is in: all of them are there."""
    read_start(index)
    try:
        places = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"{index} is no index of tensors: {error}", remedy=DOWNLOAD_AGAIN
        ) from error
    if not places:
        raise ModelError(f"{index} lists no tensors", remedy=DOWNLOAD_AGAIN)
    for name, file in places.items():
        if PurePosixPath(file).name != file:
            raise ModelError(
                f"{index} says that tensor {name} is in {file!r}, which is not beside it",
                remedy=DOWNLOAD_AGAIN,
            )
        if not (index.parent / file).is_file():
            raise ModelError(
                f"{index.parent / file} is missing, which holds tensor {name}",
                remedy=DOWNLOAD_AGAIN,
            )
    return places


def _add(tensors: dict[str, StoredTensor], more: dict[str, StoredTensor]) -> None:
    for name, tensor in more.items():
        if name in tensors:
            raise ModelError(
                f"tensor {name} is both in {tensors[name].path} and in {tensor.path.name}",
                remedy="download the model again, into an empty folder",
            )
        tensors[name] = tensor
