"""llama.cpp's enum numbers by the names people use on the command line."""

from llama_cpp import llama_cpp as cpp  # noqa: TID253 - imported by engine modules alone

CACHE_TYPES = {
    "f32": cpp.GGML_TYPE_F32,
    "f16": cpp.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16, which the bindings leave out
    "q8_0": cpp.GGML_TYPE_Q8_0,
    "q5_1": cpp.GGML_TYPE_Q5_1,
    "q5_0": cpp.GGML_TYPE_Q5_0,
    "q4_1": cpp.GGML_TYPE_Q4_1,
    "q4_0": cpp.GGML_TYPE_Q4_0,
    "iq4_nl": cpp.GGML_TYPE_IQ4_NL,
}
NUMA_STRATEGIES = {
    "disabled": cpp.GGML_NUMA_STRATEGY_DISABLED,
    "distribute": cpp.GGML_NUMA_STRATEGY_DISTRIBUTE,
    "isolate": cpp.GGML_NUMA_STRATEGY_ISOLATE,
    "numactl": cpp.GGML_NUMA_STRATEGY_NUMACTL,
}
SPLIT_MODES = {
    "none": cpp.LLAMA_SPLIT_MODE_NONE,
    "layer": cpp.LLAMA_SPLIT_MODE_LAYER,
    "row": cpp.LLAMA_SPLIT_MODE_ROW,
    "tensor": cpp.LLAMA_SPLIT_MODE_TENSOR,
}
_UNQUANTIZED = {"ALL_F32": "f32", "MOSTLY_F16": "f16", "MOSTLY_BF16": "bf16"}
_FILE_TYPES = {
    number: name.removeprefix("LLAMA_FTYPE_")
    for name, number in vars(cpp).items()
    if name.startswith("LLAMA_FTYPE_")
}
#: File types by the names people give them: "q4_k_m", "f16".
FILE_TYPES = {
    name.removeprefix("MOSTLY_").removeprefix("ALL_").lower(): number
    for number, name in _FILE_TYPES.items()
}


def load_mode(*, mmap: bool, mlock: bool) -> int:
    """LLAMA_LOAD_MODE_* for two switches."""
    if mmap:
        return cpp.LLAMA_LOAD_MODE_MMAP_MLOCK if mlock else cpp.LLAMA_LOAD_MODE_MMAP
    return cpp.LLAMA_LOAD_MODE_MLOCK if mlock else cpp.LLAMA_LOAD_MODE_NONE


def dtype_and_quantization(file_type: int) -> tuple[str | None, str | None]:
    """A file's type as `(dtype, None)` where its weights are plain, else `(None, "Q4_K_M")`."""
    name = _FILE_TYPES.get(file_type, "")
    if name in _UNQUANTIZED:
        return _UNQUANTIZED[name], None
    known = name.startswith("MOSTLY_")
    return None, name.removeprefix("MOSTLY_") if known else None
