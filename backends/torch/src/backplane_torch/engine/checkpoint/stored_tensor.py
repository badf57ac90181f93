"""A tensor that lies in a file: what is known of it, and its values when they are wanted."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch

Advance = Callable[[int], None]


class StoredTensor(ABC):
    """One tensor of a checkpoint.

    Attributes:
        name: as the checkpoint calls it; the model may call it otherwise.
        path: the file it lies in.
    """

    def __init__(
        self, name: str, path: Path, dtype: torch.dtype, shape: tuple[int, ...], num_bytes: int
    ) -> None:
        self.name = name
        self.path = path
        self.dtype = dtype
        self.shape = shape
        self.num_bytes = num_bytes

    @abstractmethod
    def read(self, advance: Advance) -> torch.Tensor:
        """Its values in memory of their own on the host; may be called from any thread.

        Args:
            advance: told of every so many bytes that were read.

        Raises:
            ModelError: the file cannot be read, or has become shorter.
        """
