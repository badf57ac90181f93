"""A LoRA adapter in GGUF form, loaded beside its model: llama.cpp's functions with Python types."""

from pathlib import Path
from typing import Any

from backplane_core.errors import AdapterError
from llama_cpp import llama_cpp as cpp  # noqa: TID253 - imported by engine modules alone

from backplane_llamacpp.native import log
from backplane_llamacpp.native.model import NativeModel


class NativeAdapter:
    """The low-rank matrices of one adapter. Its model must outlive it."""

    def __init__(self, model: NativeModel, name: str, path: Path) -> None:
        log.forget_complaints()
        self._adapter: Any = cpp.llama_adapter_lora_init(model.handle, str(path).encode())
        if not self._adapter:
            raise AdapterError(
                f"llama.cpp cannot load adapter {name} from {path.name}: {_reason()}",
                remedy="check that the file is whole and was made for this very model",
            )
        if cpp.llama_adapter_get_alora_n_invocation_tokens(self._adapter):
            self.close()
            raise AdapterError(
                f"adapter {name} is an activated LoRA, which applies from certain tokens on; "
                "backend llamacpp applies adapters to whole requests",
                remedy="use a plain LoRA",
            )

    @property
    def handle(self) -> Any:
        """The C pointer."""
        return self._adapter

    def close(self) -> None:
        """Free it. No context may have it selected any more."""
        if self._adapter:
            cpp.llama_adapter_lora_free(self._adapter)
        self._adapter = None


def _reason() -> str:
    return log.cause().removeprefix("failed to apply lora adapter: ")
