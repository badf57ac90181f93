"""The devices llama.cpp can compute on, as ggml lists them."""

import ctypes
import dataclasses
from typing import Any

from llama_cpp._ggml import libggml  # noqa: TID253 - imported by engine modules alone

_KINDS = {0: "cpu", 1: "gpu", 2: "gpu", 3: "accelerator", 4: "meta"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NativeDevice:
    """One device; memory in bytes. `kind` is "cpu", "gpu", "accelerator" or "meta"."""

    name: str
    kind: str
    free_bytes: int
    total_bytes: int


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(libggml, name)
    function.restype = result
    function.argtypes = list(arguments)
    return function


def native_devices() -> list[NativeDevice]:
    """All devices, in llama.cpp's order of preference."""
    size = ctypes.c_size_t
    count = _function("ggml_backend_dev_count", size)
    get = _function("ggml_backend_dev_get", ctypes.c_void_p, size)
    description = _function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    kind = _function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    memory = _function(
        *("ggml_backend_dev_memory", None),
        *(ctypes.c_void_p, ctypes.POINTER(size), ctypes.POINTER(size)),
    )
    devices: list[NativeDevice] = []
    for index in range(count()):
        device = get(index)
        free, total = size(), size()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        devices.append(
            NativeDevice(
                name=description(device).decode("utf-8", "replace").strip(),
                kind=_KINDS.get(kind(device), "accelerator"),
                free_bytes=free.value,
                total_bytes=total.value,
            )
        )
    return devices
