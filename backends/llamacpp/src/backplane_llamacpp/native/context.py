"""A model's key-value cache and batches: llama.cpp's context functions with Python types."""

import ctypes
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from backplane_core.errors import BackendError
from llama_cpp import llama_cpp as cpp  # noqa: TID253 - imported by engine modules alone

from backplane_llamacpp.native import log
from backplane_llamacpp.native.adapter import NativeAdapter
from backplane_llamacpp.native.model import NativeModel


class TokenBatch:
    """A reusable `llama_batch` over numpy arrays: fill a prefix of them, then decode it."""

    def __init__(self, capacity: int) -> None:
        self.tokens = np.zeros(capacity, np.int32)
        self.positions = np.zeros(capacity, np.int32)
        self.seq_ids = np.zeros(capacity, np.int32)
        self.wants_logits = np.zeros(capacity, np.int8)
        self._one_each = np.ones(capacity, np.int32)
        address = self.seq_ids.ctypes.data
        self._seq_id_pointers = address + 4 * np.arange(capacity, dtype=np.uintp)
        self.struct = cpp.llama_batch(
            0,
            _pointer(self.tokens, ctypes.c_int32),
            None,
            _pointer(self.positions, ctypes.c_int32),
            _pointer(self._one_each, ctypes.c_int32),
            _pointer(self._seq_id_pointers, ctypes.POINTER(ctypes.c_int32)),
            _pointer(self.wants_logits, ctypes.c_int8),
        )


def _pointer(array: npt.NDArray[Any], kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextOptions:
    """Sizes and modes of a context. Types are GGML_TYPE_* numbers.

    `rope_scale_factor` stretches positions linearly, whatever the file says; None is as it says.
    """

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_seq_max: int
    n_threads: int
    n_threads_batch: int
    max_scored_tokens: int = 0
    rope_scale_factor: float | None = None
    type_k: int = cpp.GGML_TYPE_F16
    type_v: int = cpp.GGML_TYPE_F16
    offload_kqv: bool = True
    flash_attention: bool = True


class NativeContext:
    """A model's unified key-value cache and compute buffers. One thread at a time."""

    def __init__(self, model: NativeModel, options: ContextOptions) -> None:
        params = cpp.llama_context_default_params()
        for name in (
            *("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_threads", "n_threads_batch"),
            *("type_k", "type_v", "offload_kqv"),
        ):
            setattr(params, name, getattr(options, name))
        # Only sampled and scored positions have logits; the buffer need not fit a whole batch.
        params.n_outputs_max = options.n_seq_max + options.max_scored_tokens
        if options.rope_scale_factor is not None:
            params.rope_scaling_type = cpp.LLAMA_ROPE_SCALING_TYPE_LINEAR
            params.rope_freq_scale = 1.0 / options.rope_scale_factor
        params.kv_unified = True
        params.flash_attn_type = (
            cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
            if options.flash_attention
            else cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        log.forget_complaints()
        self._context: Any = cpp.llama_init_from_model(model.handle, params)
        if not self._context:
            raise BackendError(
                f"llama.cpp cannot make a context of {options.n_ctx} tokens: {log.cause()}",
                remedy="a smaller --max-batch-total-tokens or --batch-size may help, or a cheaper "
                "--type-k and --type-v",
            )
        self._n_vocab = model.n_vocab
        self.num_threads = options.n_threads_batch
        self._memory: Any = cpp.llama_get_memory(self._context)
        self.n_ctx: int = cpp.llama_n_ctx(self._context)

    def close(self) -> None:
        """Free the cache and buffers."""
        if self._context:
            cpp.llama_free(self._context)
        self._context = None

    def decode(self, batch: TokenBatch, num_tokens: int) -> int:
        """Compute the first `num_tokens` of a batch.

        Returns:
            0 done; 1 no free cells, nothing was computed; 2 or below 0 failed half-way.
        """
        batch.struct.n_tokens = num_tokens
        return cpp.llama_decode(self._context, batch.struct)

    def synchronize(self) -> None:
        """Wait for the computation: a GPU's goes on after `decode`."""
        cpp.llama_synchronize(self._context)

    def logits(self, num_rows: int) -> npt.NDArray[np.float32]:
        """Logits of the last decode: a writable view, a row per position that wanted them.

        Waits for the computation. Valid until the next decode.
        """
        start_pointer = cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(start_pointer, shape=(num_rows, self._n_vocab))

    def select_adapter(self, adapter: NativeAdapter | None) -> None:
        """Compute with an adapter, or without any, from the next decode on."""
        if adapter is None:
            cpp.llama_set_adapters_lora(self._context, None, 0, None)
            return
        adapters = (cpp.llama_adapter_lora_p_ctypes * 1)(adapter.handle)
        cpp.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0))

    def copy_sequence(self, source: int, target: int, num_tokens: int) -> None:
        """Let `target` share the cells of the first `num_tokens` of `source`."""
        cpp.llama_memory_seq_cp(self._memory, source, target, 0, num_tokens)

    def remove(self, seq_id: int, start_position: int) -> bool:
        """Drop a sequence from a position on; False where its kind of memory cannot."""
        return bool(cpp.llama_memory_seq_rm(self._memory, seq_id, start_position, -1))

    def last_position(self, seq_id: int) -> int:
        """The highest position a sequence holds; -1 for none."""
        return cpp.llama_memory_seq_pos_max(self._memory, seq_id)

    def clear(self) -> None:
        """Forget every sequence."""
        cpp.llama_memory_clear(self._memory, False)
