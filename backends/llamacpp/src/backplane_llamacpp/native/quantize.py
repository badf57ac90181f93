"""llama.cpp's quantizer with Python types. It computes on all CPUs."""

import ctypes
from collections.abc import Callable
from pathlib import Path

from llama_cpp import llama_cpp as cpp  # noqa: TID253 - imported by engine modules alone

from backplane_llamacpp.native import log, model
from backplane_llamacpp.native.enums import FILE_TYPES


def write_as(source: Path, target: Path, name: str, on_log: Callable[[str], None]) -> str | None:
    """Write `source`, weights as the type called `name` ("q4_k_m"), to `target`.

    `on_log` is given each line of llama.cpp's log.

    Returns:
        What llama.cpp objects, or None where it is done; a partial target may then be there.
    """
    model.start(cpp.GGML_NUMA_STRATEGY_DISABLED)
    params = cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[name]
    log.forget_complaints()
    with log.followed_by(on_log):
        code = cpp.llama_model_quantize(
            str(source).encode(), str(target).encode(), ctypes.byref(params)
        )
    if code == 0:
        return None
    said = log.complaints() or ["it does not say why"]
    return said[-1].rpartition("failed to quantize: ")[2]  # the lines before it only decorate
