"""PyTorch's own `.bin` files: pickles, of which nothing but tensors is taken."""

import re
import zipfile
from pathlib import Path
from typing import Final

import torch
from backplane_core.errors import ModelError

from backplane_torch.engine.checkpoint.file_start import DOWNLOAD_AGAIN, read_start
from backplane_torch.engine.checkpoint.stored_tensor import Advance, StoredTensor

_USE_SAFETENSORS: Final = "use a repository that has the model as safetensors"
_REFUSED: Final = re.compile(r"Unsupported global: GLOBAL (?P<name>\S+)")  # torch's words


class PickledTensor(StoredTensor):
    """A tensor of a pickle: mapped from the file, unless the file is of the oldest format."""

    def __init__(self, name: str, path: Path, tensor: torch.Tensor) -> None:
        num_bytes = tensor.numel() * tensor.element_size()
        super().__init__(name, path, tensor.dtype, tuple(tensor.shape), num_bytes)
        self._tensor = tensor

    def read(self, advance: Advance) -> torch.Tensor:
        """See `StoredTensor`. Copied, lest the model change or vanish with the file."""
        values = self._tensor.detach().clone(memory_format=torch.contiguous_format)
        advance(self.num_bytes)
        return values


def read_pickled(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a `.bin` file, by name; values are read when wanted, as far as can be.

    Raises:
        ModelError: the file is missing, truncated, something else, or holds more than tensors.
    """
    read_start(path)
    try:
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # its kind depends on where the file stops making sense
        raise _explain(path, error) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path} holds a {type(content).__name__} instead of tensors by name",
            remedy=_USE_SAFETENSORS,
        )
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"{path}: {name} is a {type(value).__name__} and no tensor", remedy=_USE_SAFETENSORS
            )
    return {str(name): PickledTensor(str(name), path, value) for name, value in content.items()}


def _explain(path: Path, error: Exception) -> ModelError:
    if match := _REFUSED.search(str(error)):
        return ModelError(
            f"{path} holds more than tensors: {match['name']}",
            remedy=f"do not trust it; {_USE_SAFETENSORS}",
        )
    why = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
    return ModelError(f"{path} is truncated or no PyTorch file: {why}", remedy=DOWNLOAD_AGAIN)
