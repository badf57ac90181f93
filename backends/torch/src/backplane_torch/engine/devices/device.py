"""`TorchDevice`: all that differs by hardware. A backend of another accelerator adds one of these.

Models, batches, sampling and plans ask it, and never what kind of device it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from backplane_torch.engine.devices.attention import AttentionKernel

Report = Callable[[float], None]


class TorchDevice(ABC):
    """One device that computes.

    Attributes:
        quantizations: what `prepare_layers` knows and this device is good at ("int8").
    """

    quantizations: tuple[str, ...] = ()

    @property
    @abstractmethod
    def torch_device(self) -> torch.device:
        """Where tensors live."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As a person would name it."""

    @abstractmethod
    def default_dtype(self, of_checkpoint: torch.dtype) -> torch.dtype:
        """What to compute in, where nobody says: the checkpoint's, if the device is good at it."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Memory that weights or a cache may still take."""

    @abstractmethod
    def attention(self, dtype: torch.dtype, block_size: int) -> AttentionKernel[Any, Any]:
        """The attention over a paged cache of that type, in blocks of so many tokens."""

    @abstractmethod
    def prepare_layers(self, model: nn.Module, quantize: str | None, report: Report) -> None:
        """Bring the layers of a loaded model into the form that is computed fastest.

        Args:
            model: changed in place, one layer after the other, so that at most one is there twice.
            quantize: one of `quantizations`, or None to compute in the model's dtype.
            report: told how much of it is done, 0…1.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Return when all that was started is computed."""

    @abstractmethod
    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether it says that there was no memory, and that the device goes on working."""
