"""Flags that say which backend runs the model, on which devices and with which numbers."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cyclopts.validators import Number

from backplane_launcher.settings.flag import (
    BACKEND,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_NUMBER,
    counts,
    flag,
    switch,
)

Quantization = Literal[
    "awq",
    "compressed-tensors",
    "eetq",
    "exl2",
    "gptq",
    "marlin",
    "bitsandbytes",
    "bitsandbytes-nf4",
    "bitsandbytes-fp4",
    "fp8",
    "int8",
]
_SHARE: Final = Number(gt=0, lte=1)


@dataclass(frozen=True, kw_only=True)
class BackendSettings:
    """Which backend, and how it computes."""

    backend: Annotated[
        str,
        flag(
            BACKEND,
            "--backend",
            help="A backend's name (see `backplane backends`); auto takes the best that can run.",
        ),
    ] = "auto"
    backend_python: Annotated[
        tuple[str, ...],
        flag(
            BACKEND,
            "--backend-python",
            help="NAME=PATH: the Python in whose environment backend NAME lives; repeatable.",
        ),
    ] = ()
    num_replicas: Annotated[
        int,
        flag(
            BACKEND,
            "--num-replicas",
            help="Workers, each with the whole model.",
            validator=POSITIVE,
        ),
    ] = 1
    sharded: Annotated[
        Literal["true", "false"] | None,
        flag(
            BACKEND,
            "--sharded",
            help="true: one worker spans all visible devices, or --num-shard of them, and there "
            "must be two; false: one device, unless --num-shard says otherwise.",
            converter=switch,
        ),
    ] = None
    num_shard: Annotated[
        int | None,
        flag(
            BACKEND,
            "--num-shard",
            help="Devices one worker spans; without it those that CUDA_VISIBLE_DEVICES, "
            "NVIDIA_VISIBLE_DEVICES or ZE_AFFINITY_MASK show, where the backend can span several.",
            validator=POSITIVE,
        ),
    ] = None
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"] | None,
        flag(BACKEND, "--dtype", help="Number format to compute in."),
    ] = None
    quantize: Annotated[
        Quantization | None,
        flag(
            BACKEND,
            "--quantize",
            help="Quantization of the weights. What int8 costs, measured with the torch backend on "
            "the demo model: perplexity 1.2993 to 1.2995, 1 of 100 greedy answers differs.",
        ),
    ] = None
    kv_cache_dtype: Annotated[
        Literal["fp8_e4m3fn", "fp8_e5m2"] | None,
        flag(BACKEND, "--kv-cache-dtype", help="Number format of the key-value cache."),
    ] = None
    speculate: Annotated[
        int | None,
        flag(
            BACKEND,
            "--speculate",
            help="Tokens to draft ahead of each step; 0 drafts none.",
            validator=NOT_NEGATIVE,
        ),
    ] = None
    cuda_graphs: Annotated[
        tuple[int, ...] | None,
        flag(
            BACKEND,
            "--cuda-graphs",
            help="Batch sizes to record CUDA graphs for, with commas between; 0 records none.",
            converter=counts,
        ),
    ] = None
    cuda_memory_fraction: Annotated[
        float | None,
        flag(
            BACKEND,
            "--cuda-memory-fraction",
            help="Share of a device's memory that the backend may take.",
            validator=_SHARE,
        ),
    ] = None
    rope_scaling: Annotated[
        Literal["linear", "dynamic"] | None,
        flag(
            BACKEND,
            "--rope-scaling",
            help="How positions are stretched for longer prompts; linear if only --rope-factor "
            "is given.",
        ),
    ] = None
    rope_factor: Annotated[
        float | None,
        flag(
            BACKEND,
            "--rope-factor",
            help="How far they are stretched; 1 if only --rope-scaling is given.",
            validator=POSITIVE_NUMBER,
        ),
    ] = None
