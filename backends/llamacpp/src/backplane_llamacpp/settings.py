"""The flags of the llama.cpp backend, named as TGI's llamacpp backend names them.

Import-light. `load_plan` and `limits` give every one of them its effect or refuse it.
"""

import dataclasses
from typing import Literal

from backplane_core.backend import setting

BACKEND = "llamacpp"

# The types llama.cpp has attention kernels for; ggml's other types are for weights.
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaCppSettings:
    """None and 0 threads are automatic."""

    ctx_size: int | None = setting(
        None,
        "tokens the key-value cache holds for all sequences together; automatic: what the model "
        "was trained on or 2048 per sequence, as far as half the free memory goes",
    )
    batch_size: int | None = setting(
        None,
        "most tokens of one engine step; automatic: 512 on the CPU, 2048 on a GPU",
        flags=("--batch-size",),
    )
    ubatch_size: int | None = setting(
        None,
        "tokens computed at once within a step (TGI: --max-physical-batch-total-tokens)",
        flags=("--ubatch-size", "--max-physical-batch-total-tokens"),
    )
    max_sequences: int | None = setting(
        None,
        "sequences that run at a time, at most 256; automatic: --max-batch-size or 64",
        flags=("--max-sequences",),
    )
    retained_tokens: int | None = setting(
        None,
        "tokens of finished sequences kept for requests that begin alike; 0 keeps none; "
        "automatic: one for every 8 KiB of weights, so that passing over them costs little",
        flags=("--retained-tokens",),
    )
    n_threads: int = setting(
        0,
        "threads for steps of one token; 0 is every CPU, but at most one for 16 MiB of weights",
        flags=("--n-threads",),
    )
    n_threads_batch: int = setting(
        0, "threads for larger steps; 0 is as with --n-threads", flags=("--n-threads-batch",)
    )
    n_gpu_layers: int = setting(
        0, "layers to put on the GPU; negative is all of them", flags=("--n-gpu-layers",)
    )
    split_mode: str = setting(
        "layer",
        "how to use several GPUs: layer, row, tensor, or the number of the only one to use",
        flags=("--split-mode",),
    )
    defrag_threshold: float = setting(
        -1.0,
        "negative is off; this llama.cpp has no defragmentation any more, so nothing else is taken",
        flags=("--defrag-threshold",),
    )
    numa: Literal["disabled", "distribute", "isolate", "numactl", "mirror"] = setting(
        "disabled", "how threads are spread over NUMA nodes", flags=("--numa",)
    )
    disable_mmap: bool = setting(
        False, "read the weights into memory instead of mapping the file", flags=("--disable-mmap",)
    )
    use_mlock: bool = setting(
        False, "lock the weights in memory, so that they are never swapped", flags=("--use-mlock",)
    )
    disable_offload_kqv: bool = setting(
        False, "keep the key-value cache off the GPU", flags=("--disable-offload-kqv",)
    )
    disable_flash_attention: bool = setting(
        False, "use plain attention", flags=("--disable-flash-attention",)
    )
    type_k: CacheType = setting(  # noqa: RUF009 - an alias hides that the default is a string
        "f16", "type of the cached keys; f32 excludes flash attention", flags=("--type-k",)
    )
    type_v: CacheType = setting(  # noqa: RUF009 - likewise
        "f16", "type of the cached values; f32 excludes flash attention", flags=("--type-v",)
    )
