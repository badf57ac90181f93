"""The flags common to all backends: each has its effect, or is refused by name."""

import pytest
import torch
from backplane_core.backend import EngineSettings
from backplane_core.errors import BackendError
from backplane_torch.engine.devices.cpu import CpuDevice
from backplane_torch.engine.engine_settings import (
    check_engine_settings,
    compute_dtype,
    stretch_positions,
)
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig


@pytest.fixture(scope="module")
def cpu() -> CpuDevice:
    return CpuDevice(1)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"num_shard": 1},
        {"speculate": 0},
        {"cuda_graphs": (0,)},
        {"memory_fraction": 1.0},
    ],
)
def test_what_changes_nothing_is_taken(flags: dict[str, object], cpu: CpuDevice) -> None:
    check_engine_settings(EngineSettings(**flags), cpu)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_shard": 2}, "--num-shard 2"),
        ({"speculate": 3}, "--speculate 3"),
        ({"cuda_graphs": (1, 2)}, "--cuda-graphs 1,2"),
        ({"memory_fraction": 1.5}, "--cuda-memory-fraction 1.5"),
        ({"memory_fraction": 0.0}, "--cuda-memory-fraction 0.0"),
        ({"quantize": "awq"}, "--quantize awq"),
    ],
)
def test_what_cannot_be_honoured_is_named(
    flags: dict[str, object], message: str, cpu: CpuDevice
) -> None:
    with pytest.raises(BackendError, match=message) as raised:
        check_engine_settings(EngineSettings(**flags), cpu)
    assert raised.value.remedy or "memory-fraction" in message


def test_a_checkpoints_dtype_is_kept_and_another_taken_as_asked(cpu: CpuDevice) -> None:
    assert compute_dtype(EngineSettings(), torch.float32, cpu) is torch.float32
    # Half precision would be emulated.
    assert compute_dtype(EngineSettings(), torch.float16, cpu) is torch.float32
    asked = EngineSettings(dtype="bfloat16", kv_cache_dtype="bfloat16")
    assert compute_dtype(asked, torch.float32, cpu) is torch.bfloat16


def test_a_dtype_that_nobody_asked_for_is_told(
    cpu: CpuDevice, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="backplane_torch")
    compute_dtype(EngineSettings(), torch.float32, cpu)
    compute_dtype(EngineSettings(dtype="float32"), torch.float16, cpu)
    assert not caplog.messages
    compute_dtype(EngineSettings(), torch.float16, cpu)
    compute_dtype(EngineSettings(quantize="int8"), torch.float16, cpu)
    told, told_of_int8 = caplog.messages
    assert told == f"{told_of_int8}; --dtype float16 keeps them"
    assert told.startswith("weights of float16 are computed in float32, which is faster on cpu")


@pytest.mark.parametrize("flags", [{"dtype": "int4"}, {"kv_cache_dtype": "fp8_e5m2"}])
def test_other_dtypes_are_refused(flags: dict[str, str], cpu: CpuDevice) -> None:
    with pytest.raises(BackendError, match=next(iter(flags.values()))):
        compute_dtype(EngineSettings(**flags), torch.float32, cpu)


def test_integers_are_computed_beside_what_is_wide_enough(cpu: CpuDevice) -> None:
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        asked = EngineSettings(quantize="int8", dtype=name)
        assert compute_dtype(asked, torch.float32, cpu) is dtype
    with pytest.raises(BackendError, match="--quantize int8 computes beside bfloat16 or float32"):
        compute_dtype(EngineSettings(quantize="int8", dtype="float16"), torch.float32, cpu)


def test_positions_are_stretched_linearly() -> None:
    config = LlamaConfig(max_position_embeddings=1000)
    stretch_positions(config, EngineSettings(rope_factor=2.5))
    assert config.max_position_embeddings == 2500
    assert config.rope_parameters["rope_type"] == "linear"
    assert config.rope_parameters["factor"] == 2.5
    assert config.rope_parameters["rope_theta"] == LlamaConfig().rope_parameters["rope_theta"]


def test_a_factor_of_one_changes_nothing() -> None:
    config = LlamaConfig()
    stretch_positions(config, EngineSettings(rope_scaling="linear", rope_factor=1.0))
    assert config.to_dict() == LlamaConfig().to_dict()


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        (LlamaConfig(), {"rope_scaling": "dynamic", "rope_factor": 2.0}, "--rope-scaling dynamic"),
        (LlamaConfig(), {"rope_factor": 0.5}, "--rope-factor 0.5 stretches nothing"),
        (GPT2Config(), {"rope_factor": 2.0}, "no rotary positions"),
        (Gemma3TextConfig(), {"rope_factor": 2.0}, "positions in several ways"),
        (
            LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0}),
            {"rope_factor": 2.0},
            "positions of type linear",
        ),
    ],
)
def test_other_stretching_is_refused(
    config: object, flags: dict[str, object], message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        stretch_positions(config, EngineSettings(**flags))
