"""The flags of all backends: each has its effect here, or is refused with what replaces it."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.errors import BackendError
from backplane_llamacpp.backend import LlamaCppBackend
from backplane_llamacpp.engine_settings import (
    check_engine_settings,
    rope_factor,
    with_cache_dtype,
)
from backplane_llamacpp.native import enums
from backplane_llamacpp.native.context import ContextOptions, NativeContext, TokenBatch
from backplane_llamacpp.native.model import NativeModel
from backplane_llamacpp.settings import LlamaCppSettings

from tests.llamacpp import tiny_other
from tests.llamacpp.conftest import ignore_progress
from tests.llamacpp.reference_llama import ReferenceLlama

PROMPT = [284, 72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100]


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({"num_shard": 2}, "no --num-shard 2.*--split-mode"),
        ({"dtype": "float16"}, "--dtype float16 has no meaning for a GGUF file.*:F16"),
        ({"quantize": "awq"}, "--quantize awq has no meaning for a GGUF.*backplane quantize"),
        ({"speculate": 3}, "--speculate 3: .*drafts no tokens"),
        ({"cuda_graphs": (1, 2, 4)}, "--cuda-graphs 1,2,4: .*by itself.*--cuda-graphs 0"),
        ({"memory_fraction": 0.0}, "--cuda-memory-fraction 0.0 is no share"),
        ({"memory_fraction": 1.5}, "--cuda-memory-fraction 1.5 is no share"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_a_remedy(
    engine: dict[str, Any], says: str
) -> None:
    with pytest.raises(BackendError, match=says):
        check_engine_settings(EngineSettings(**engine))


@pytest.mark.parametrize(
    "engine", [{}, {"num_shard": 1}, {"speculate": 0}, {"memory_fraction": 1.0}]
)
def test_what_asks_for_nothing_is_taken(engine: dict[str, Any]) -> None:
    check_engine_settings(EngineSettings(**engine))


@pytest.mark.parametrize("sizes", [(), (0,)])
def test_no_cuda_graphs_is_told_to_llama_cpp(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GGML_CUDA_DISABLE_GRAPHS", raising=False)
    check_engine_settings(EngineSettings())
    assert "GGML_CUDA_DISABLE_GRAPHS" not in os.environ
    check_engine_settings(EngineSettings(cuda_graphs=sizes))
    assert os.environ["GGML_CUDA_DISABLE_GRAPHS"] == "1"
    monkeypatch.delenv("GGML_CUDA_DISABLE_GRAPHS")


def test_kv_cache_dtype_is_both_cache_types() -> None:
    plain = LlamaCppSettings()
    both = with_cache_dtype(plain, EngineSettings(kv_cache_dtype="q8_0"))
    assert (both.type_k, both.type_v) == ("q8_0", "q8_0")
    assert with_cache_dtype(plain, EngineSettings()) is plain
    with pytest.raises(
        BackendError, match=r"llama.cpp caches no fp8_e5m2.*it has: f32.*q8_0 takes"
    ):
        with_cache_dtype(plain, EngineSettings(kv_cache_dtype="fp8_e5m2"))
    with pytest.raises(BackendError, match="--kv-cache-dtype q8_0 and --type-k q4_0 contradict"):
        with_cache_dtype(LlamaCppSettings(type_k="q4_0"), EngineSettings(kv_cache_dtype="q8_0"))


@pytest.mark.parametrize(
    ("engine", "factor"),
    [
        ({}, None),
        ({"rope_scaling": "linear"}, None),
        ({"rope_factor": 1.0}, None),
        ({"rope_factor": 4.0}, 4.0),
        ({"rope_scaling": "linear", "rope_factor": 2.5}, 2.5),
    ],
)
def test_a_factor_alone_is_linear_and_1_changes_nothing(
    engine: dict[str, Any], factor: float | None
) -> None:
    assert rope_factor(EngineSettings(**engine)) == factor


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({"rope_scaling": "dynamic"}, "--rope-scaling dynamic: .*linear.*YaRN"),
        ({"rope_scaling": "dynamic", "rope_factor": 2.0}, "--rope-scaling dynamic"),
        ({"rope_factor": 0.5}, "--rope-factor 0.5 stretches nothing"),
        ({"rope_factor": float("nan")}, "--rope-factor nan"),
        ({"rope_factor": float("inf")}, "--rope-factor inf"),
    ],
)
def test_other_scalings_are_refused(engine: dict[str, Any], says: str) -> None:
    with pytest.raises(BackendError, match=says):
        rope_factor(EngineSettings(**engine))


def test_stretched_positions_are_those_of_the_architecture(bpe_model: NativeModel) -> None:
    options = ContextOptions(
        n_ctx=256,
        n_batch=64,
        n_ubatch=64,
        n_seq_max=1,
        n_threads=1,
        n_threads_batch=1,
        type_k=enums.CACHE_TYPES["f32"],
        type_v=enums.CACHE_TYPES["f32"],
        flash_attention=False,
    )
    found = []
    for factor in (None, 4.0):
        context = NativeContext(bpe_model, dataclasses.replace(options, rope_scale_factor=factor))
        batch = TokenBatch(len(PROMPT))
        batch.tokens[:] = PROMPT
        batch.positions[:] = range(len(PROMPT))
        batch.wants_logits[-1] = 1
        assert context.decode(batch, len(PROMPT)) == 0
        found.append(context.logits(1)[0].copy())
        context.close()
    expected = [ReferenceLlama(rope_factor=factor).logits(PROMPT)[-1] for factor in (1.0, 4.0)]
    assert np.allclose(found[0], expected[0], atol=1e-3)
    assert np.allclose(found[1], expected[1], atol=1e-3)
    assert not np.allclose(expected[0], expected[1], atol=0.2)


def load(path: Path, **engine: Any) -> Any:
    spec = RunnerSpec(
        model=ModelSource(model_id="m", path=str(path)), engine=EngineSettings(**engine)
    )
    runner = LlamaCppBackend().create_runner(spec, ignore_progress)
    try:
        return runner.info
    finally:
        runner.close()


def test_a_stretched_model_takes_longer_sequences(bpe_path: Path) -> None:
    assert load(bpe_path, rope_factor=3.0).limits.max_total_tokens == 3 * 512
    assert load(bpe_path).limits.max_total_tokens == 512
    with pytest.raises(BackendError, match="trained on 512, positions stretched by 3"):
        load(bpe_path, rope_factor=3.0, max_total_tokens=1537)


def test_a_model_without_rotary_positions_is_not_stretched(tmp_path: Path) -> None:
    path = tiny_other.write_mamba(tmp_path / "mamba.gguf")
    with pytest.raises(BackendError, match="no rotary positions to stretch"):
        load(path, rope_factor=2.0)


def test_a_share_of_the_memory_bounds_the_cache(bpe_path: Path) -> None:
    small = load(bpe_path, memory_fraction=1e-5).limits.cache_tokens
    large = load(bpe_path, memory_fraction=0.9).limits.cache_tokens
    assert small < large
