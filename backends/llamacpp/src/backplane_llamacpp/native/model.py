"""A loaded GGUF: llama.cpp's model and vocabulary functions with Python types. No policy.

ctypes lets go of the GIL in every call.
"""

import ctypes
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backplane_core.errors import ModelError
from llama_cpp import llama_cpp as cpp  # noqa: TID253 - imported by engine modules alone

from backplane_llamacpp.native import log

_ATTR_SPECIAL = cpp.LLAMA_TOKEN_ATTR_CONTROL | cpp.LLAMA_TOKEN_ATTR_UNKNOWN
_started = False


def start(numa: int) -> None:
    """Initialize llama.cpp once per process; `numa` is a GGML_NUMA_STRATEGY_* number."""
    global _started  # noqa: PLW0603 - so is llama.cpp's own state
    log.route()
    if not _started:
        cpp.llama_backend_init()
        if numa != cpp.GGML_NUMA_STRATEGY_DISABLED:
            cpp.llama_numa_init(numa)
        _started = True


def version() -> str:
    """llama.cpp's own version."""
    return cpp.llama_version().decode()


def supports_gpu_offload() -> bool:
    """Whether this build of llama.cpp has a GPU backend with a device."""
    return bool(cpp.llama_supports_gpu_offload())


def supports_mlock() -> bool:
    """Whether memory can be locked on this system."""
    return bool(cpp.llama_supports_mlock())


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How to load a model. Numbers are llama.h's enums; -1 GPU layers is all."""

    n_gpu_layers: int = 0
    split_mode: int = cpp.LLAMA_SPLIT_MODE_LAYER
    main_gpu: int = 0
    load_mode: int = cpp.LLAMA_LOAD_MODE_MMAP


class NativeModel:
    """A loaded GGUF and its vocabulary. Read-only after loading, so any thread may use it."""

    def __init__(
        self, path: Path, options: LoadOptions, on_progress: Callable[[float], None]
    ) -> None:
        params = cpp.llama_model_default_params()
        params.n_gpu_layers = options.n_gpu_layers
        params.split_mode = options.split_mode
        params.main_gpu = options.main_gpu
        params.load_mode = options.load_mode
        interruption: list[BaseException] = []

        def report(fraction: float, _user_data: object) -> bool:
            try:
                on_progress(fraction)
            except BaseException as error:  # noqa: BLE001 - it must not pass through C; raised below
                interruption.append(error)
            return not interruption

        callback = cpp.llama_progress_callback(report)
        params.progress_callback = callback
        log.forget_complaints()
        self._model: Any = cpp.llama_model_load_from_file(str(path).encode(), params)
        if interruption:
            self.close()
            raise interruption[0]
        if not self._model:
            raise ModelError(
                f"llama.cpp cannot load {path}: {log.cause()}",
                remedy="check that the file is whole and its architecture known to this llama.cpp",
            )
        self._vocab: Any = cpp.llama_model_get_vocab(self._model)
        self.n_vocab: int = cpp.llama_vocab_n_tokens(self._vocab)

    @property
    def handle(self) -> Any:
        """The C pointer."""
        return self._model

    def close(self) -> None:
        """Free the weights. Contexts made from it must be closed before."""
        if self._model:
            cpp.llama_model_free(self._model)
        self._model = None

    # ── facts ────────────────────────────────────────────────────────────────────────────

    def metadata(self) -> dict[str, str]:
        """The file's scalar metadata, values as text."""
        count = cpp.llama_model_meta_count(self._model)
        by_index = cpp.llama_model_meta_key_by_index, cpp.llama_model_meta_val_str_by_index
        pairs = (tuple(self._string(read, index) for read in by_index) for index in range(count))
        return dict(pairs)

    def _string(self, read: Callable[..., int], index: int) -> str:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = read(self._model, index, buffer, size)
            if length < size:
                return buffer.raw[: max(0, length)].decode("utf-8", "replace")
            size = length + 1

    @property
    def n_ctx_train(self) -> int:
        """Tokens it was trained to see at once."""
        return cpp.llama_model_n_ctx_train(self._model)

    @property
    def n_layer(self) -> int:
        """Layers."""
        return cpp.llama_model_n_layer(self._model)

    @property
    def n_embd(self) -> int:
        """Width of a hidden state."""
        return cpp.llama_model_n_embd(self._model)

    @property
    def n_head(self) -> int:
        """Attention heads."""
        return cpp.llama_model_n_head(self._model)

    @property
    def n_head_kv(self) -> int:
        """Key-value heads of the first layer."""
        return cpp.llama_model_n_head_kv(self._model)

    @property
    def n_swa(self) -> int:
        """Width of the sliding attention window; 0 is none."""
        return cpp.llama_model_n_swa(self._model)

    @property
    def has_rotary_positions(self) -> bool:
        """Whether positions are rotations (RoPE), which can be stretched."""
        return cpp.llama_model_rope_type(self._model) != cpp.LLAMA_ROPE_TYPE_NONE

    @property
    def n_params(self) -> int:
        """Number of weights."""
        return cpp.llama_model_n_params(self._model)

    @property
    def size_bytes(self) -> int:
        """Size of all tensors."""
        return cpp.llama_model_size(self._model)

    @property
    def has_state(self) -> bool:
        """Whether it keeps a running state per sequence (Mamba, RWKV, hybrids)."""
        return bool(
            cpp.llama_model_is_recurrent(self._model) or cpp.llama_model_is_hybrid(self._model)
        )

    @property
    def generates(self) -> bool:
        """Whether it continues a text: no encoder half, no diffusion, no embedding-only model."""
        return (
            bool(cpp.llama_model_has_decoder(self._model))
            and not cpp.llama_model_has_encoder(self._model)
            and not cpp.llama_model_is_diffusion(self._model)
        )

    # ── vocabulary ───────────────────────────────────────────────────────────────────────

    @property
    def vocabulary_type(self) -> int:
        """LLAMA_VOCAB_TYPE_*."""
        return cpp.llama_vocab_type(self._vocab)

    @property
    def bos_token_id(self) -> int | None:
        """The id that begins a text, if there is one."""
        token_id = cpp.llama_vocab_bos(self._vocab)
        return token_id if token_id >= 0 else None

    @property
    def adds_bos(self) -> bool:
        """Whether encoding puts that id there."""
        return bool(cpp.llama_vocab_get_add_bos(self._vocab))

    def piece(self, token_id: int) -> bytes:
        """The exact bytes a token stands for."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = cpp.llama_token_to_piece(self._vocab, token_id, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def is_special(self, token_id: int) -> bool:
        """Whether it is a control token or the unknown token."""
        return bool(cpp.llama_vocab_get_attr(self._vocab, token_id) & _ATTR_SPECIAL)

    def ends_generation(self, token_id: int) -> bool:
        """Whether it is one of the model's end tokens (of a text, a turn, a message)."""
        return bool(cpp.llama_vocab_is_eog(self._vocab, token_id))

    def suppressed_token_ids(self) -> list[int]:
        """Ids that the file says must never be generated."""
        count = ctypes.c_int32()
        ids = cpp.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(count))
        return ids[: count.value] if ids and count.value else []

    def encode(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of UTF-8 text. Any thread."""
        size = len(text) // 2 + 16
        while True:
            buffer = (cpp.llama_token * size)()
            count = cpp.llama_tokenize(
                self._vocab, text, len(text), buffer, size, add_special, parse_special
            )
            if count >= 0:
                return buffer[:count]
            size = -count
