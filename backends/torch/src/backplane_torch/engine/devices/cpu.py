"""`CpuDevice`: the host's processor, and the reference that the other devices are held to."""

import logging
import os
from typing import Any, Final

import torch
from backplane_core.errors import BackendError
from backplane_core.host_memory import available_bytes
from torch import nn

from backplane_torch.engine.devices.attention import AttentionKernel
from backplane_torch.engine.devices.cpu_attention import CpuAttention
from backplane_torch.engine.devices.cpu_linears import INT8, replace_linears
from backplane_torch.engine.devices.cpu_norms import replace_norms
from backplane_torch.engine.devices.device import Report, TorchDevice
from backplane_torch.engine.devices.int8_linear import computes_int8
from backplane_torch.engine.devices.native_attention import native_attention

_log = logging.getLogger(__name__)

# What torch's allocator says, and oneDNN, which says no more where it finds none for its buffers.
_NO_MEMORY: Final = ("can't allocate memory", "could not create a primitive")


class CpuDevice(TorchDevice):
    """All CPUs that this process may use, or `threads` of them."""

    def __init__(self, threads: int) -> None:
        """Set how many threads torch computes with, for the whole process.

        Raises:
            BackendError: a negative number was asked for.
        """
        if threads < 0:
            raise BackendError(f"--torch.threads is {threads}, but must be 0 (automatic) or more")
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        self.quantizations = (INT8,) if computes_int8() else ()

    @property
    def torch_device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def name(self) -> str:
        """As torch names what it compiled for."""
        return f"cpu ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)"

    def default_dtype(self, of_checkpoint: torch.dtype) -> torch.dtype:
        """The checkpoint's, but float32 for half precision that the CPU would only emulate."""
        if of_checkpoint is torch.float16 or (
            of_checkpoint is torch.bfloat16 and not torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 -- torch has no public question for it
        ):
            return torch.float32
        return of_checkpoint

    def free_bytes(self) -> int:
        """Of the machine, or of the container."""
        return available_bytes()

    def attention(self, dtype: torch.dtype, block_size: int) -> AttentionKernel[Any, Any]:
        """The compiled one, where it knows the type and block size; else torch's operations."""
        compiled = native_attention(dtype, block_size)
        by = "compiled loops" if compiled else "torch's own operations"
        _log.info("attention over pages is computed by %s", by)
        return compiled or CpuAttention(dtype, block_size)

    def prepare_layers(self, model: nn.Module, quantize: str | None, report: Report) -> None:
        """Linear ones packed, with a second copy where there is room, or in 8 bits; RMS norms."""
        replace_norms(model)
        replace_linears(model, quantize, self.free_bytes, report)

    def synchronize(self) -> None:
        """Nothing: the CPU computes as it is told to."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an allocation failed; torch has no class of its own for that on the CPU."""
        return isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
        )
