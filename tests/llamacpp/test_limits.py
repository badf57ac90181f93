"""The arithmetic of contexts and batches."""

import dataclasses
from typing import Any

import pytest
from backplane_core.backend import EngineSettings
from backplane_core.errors import BackendError
from backplane_core.host_memory import available_bytes
from backplane_llamacpp.limits import (
    BYTES_PER_VALUE,
    MAX_SEQUENCES,
    ModelShape,
    Plan,
    make_plan,
    num_threads,
    pace,
)
from backplane_llamacpp.native import enums
from backplane_llamacpp.settings import LlamaCppSettings
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp import llama_cpp as cpp  # noqa: TID253 - its constants are compared with ours

GIB = 2**30
# Llama 3.1 8B: 32 layers of 8 key-value heads of 128; Q4_K_M.
LLAMA_8B = ModelShape(
    n_ctx_train=131072, key_values=32768, value_values=32768, size_bytes=int(4.58 * GIB)
)
DEMO = ModelShape(n_ctx_train=2048, key_values=512, value_values=512, size_bytes=8_000_000)


def plan(
    shape: ModelShape = DEMO,
    free: int = 16 * GIB,
    engine: dict[str, Any] | None = None,
    **settings: Any,
) -> Plan:
    return make_plan(shape, free, LlamaCppSettings(**settings), EngineSettings(**engine or {}))


def test_a_small_model_has_its_length_for_every_sequence() -> None:
    made = plan()
    assert made.cache_tokens == 64 * 2048
    assert made.max_total_tokens == 2048
    assert made.max_input_tokens == 2047
    assert made.running_sequences == 64
    assert "trained on 2048" in made.why
    assert "64 sequences at a time" in made.why


def test_a_large_model_takes_half_of_the_free_memory() -> None:
    made = plan(LLAMA_8B, 8 * GIB)
    assert made.cache_tokens == 4 * GIB // (128 * 1024)
    assert made.max_total_tokens == made.cache_tokens
    assert "50% of 8.0 GiB free memory" in made.why


def test_a_share_of_the_free_memory_may_be_asked_for() -> None:
    made = plan(LLAMA_8B, 8 * GIB, engine={"memory_fraction": 0.25})
    assert made.cache_tokens == 2 * GIB // (128 * 1024)
    assert "25% of 8.0 GiB free memory" in made.why
    with pytest.raises(BackendError, match=r"but 2\.0 GiB are free"):
        plan(LLAMA_8B, 8 * GIB, {"memory_fraction": 0.25}, ctx_size=20480)
    assert plan(LLAMA_8B, 8 * GIB, ctx_size=20480).cache_tokens == 20480


def test_a_large_vocabulary_has_few_rows_for_prompt_logprobs() -> None:
    assert plan(DEMO).scored_tokens == 512
    large = plan(dataclasses.replace(LLAMA_8B, n_vocab=128256), 8 * GIB)
    assert large.scored_tokens == 130
    assert 4 * 128256 * large.scored_tokens <= 64 * 2**20


def test_a_quantized_cache_holds_more() -> None:
    plain = plan(LLAMA_8B, 8 * GIB)
    quantized = plan(LLAMA_8B, 8 * GIB, type_k="q8_0", type_v="q8_0")
    assert quantized.cache_tokens > 1.8 * plain.cache_tokens


def test_as_much_is_retained_as_the_weights_pay_for() -> None:
    made = plan(LLAMA_8B, 64 * GIB)
    assert made.retained_tokens == min(LLAMA_8B.size_bytes // 8192, made.cache_tokens // 2)
    assert plan().retained_tokens == DEMO.size_bytes // 8192
    tiny = ModelShape(n_ctx_train=2048, key_values=512, value_values=512, size_bytes=80_000)
    assert plan(tiny).retained_tokens == 512
    assert plan(retained_tokens=0).retained_sequences == 0
    assert plan(retained_tokens=500).retained_tokens == 500


def test_what_is_asked_for_is_done() -> None:
    engine = {
        "max_total_tokens": 1000,
        "max_input_tokens": 900,
        "max_batch_prefill_tokens": 300,
        "max_batch_size": 10,
        "max_concurrent_requests": 30,
    }
    made = plan(engine=engine, ctx_size=5000, ubatch_size=100)
    assert made.cache_tokens == 5120  # cells come in steps of 256
    assert (made.max_total_tokens, made.max_input_tokens) == (1000, 900)
    assert (made.batch_tokens, made.ubatch_tokens, made.chunk_tokens) == (300, 100, 300)
    assert (made.running_sequences, made.retained_sequences) == (10, 10)
    assert made.max_waiting_requests == 20
    assert made.limits.max_sequences == 10
    assert made.limits.cache_tokens == 5120


def test_what_is_not_done_as_asked_is_told_with_the_reason() -> None:
    assert (
        plan(engine={"max_batch_total_tokens": 512, "max_batch_prefill_tokens": 64}).changed == ()
    )
    made = plan(engine={"max_batch_total_tokens": 100, "max_batch_prefill_tokens": 8})
    assert (made.cache_tokens, made.batch_tokens) == (256, 64)
    assert made.changed == (
        "--max-batch-total-tokens is 256, not 100: llama.cpp's cache grows in steps of 256",
        (
            "--max-batch-prefill-tokens is 64, not 8: a step has room for a token of each of "
            "the 64 sequences; --max-batch-size lowers their number"
        ),
    )
    (sentence,) = plan(ctx_size=300).changed
    assert sentence.startswith("--llamacpp.ctx-size is 512, not 300: ")
    (sentence,) = plan(batch_size=8).changed
    assert sentence.startswith("--batch-size is 64, not 8: ")


def test_a_batch_holds_at_least_every_running_sequence() -> None:
    assert plan(batch_size=8, max_sequences=32).batch_tokens == 32


def test_a_gpu_takes_larger_batches() -> None:
    assert plan(n_gpu_layers=-1).batch_tokens == 2048
    assert plan().batch_tokens == 512


def test_a_model_with_a_running_state_gets_fewer_sequences() -> None:
    stateful = ModelShape(
        n_ctx_train=2048, key_values=0, value_values=0, size_bytes=10**9, has_state=True
    )
    assert plan(stateful).running_sequences == 16


@pytest.mark.parametrize(
    ("engine", "settings", "says"),
    [
        ({"max_total_tokens": 4096}, {}, "--max-total-tokens is 4096, but.* trained on 2048"),
        ({"max_total_tokens": 2000}, {"ctx_size": 512}, "the context holds 512 tokens"),
        (
            {"max_total_tokens": 500, "max_input_tokens": 500},
            {},
            "--max-input-tokens is 500.*below --max-total-tokens, 500",
        ),
        ({"max_batch_total_tokens": 4096}, {"ctx_size": 8192}, "mean the same thing"),
        ({"max_batch_size": 300}, {}, "at most 256 sequences, not 300"),
        ({"max_batch_size": 3}, {"max_sequences": 4}, "mean the same thing"),
        ({}, {"ctx_size": 10**9}, "needs .* GiB, but 16.0 GiB are free"),
        ({}, {"ctx_size": 0}, "--llamacpp.ctx-size is 0, but must be at least 1"),
        ({}, {"ubatch_size": 0}, "--ubatch-size is 0"),
        ({}, {"retained_tokens": -1}, "--retained-tokens is -1"),
        ({"max_batch_prefill_tokens": 0}, {}, "is 0, but must be at least 1"),
    ],
)
def test_contradictions_are_refused(
    engine: dict[str, Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(BackendError, match=says):
        plan(engine=engine, **settings)


def test_no_memory_for_any_context() -> None:
    with pytest.raises(BackendError, match="10 MiB of free memory hold no context"):
        plan(LLAMA_8B, 10 * 2**20)


@given(
    free=st.integers(2**28, 2**38),
    n_ctx_train=st.integers(256, 2**20),
    values=st.integers(64, 2**16),
    size=st.integers(2**20, 2**37),
    sequences=st.integers(1, 256),
)
def test_any_plan_is_consistent(
    free: int, n_ctx_train: int, values: int, size: int, sequences: int
) -> None:
    shape = ModelShape(
        n_ctx_train=n_ctx_train, key_values=values, value_values=values, size_bytes=size
    )
    made = plan(shape, free, max_sequences=sequences)
    assert made.cache_tokens * shape.bytes_per_token("f16", "f16") <= free / 2
    assert 1 <= made.max_input_tokens < made.max_total_tokens <= made.cache_tokens
    assert made.num_sequences <= MAX_SEQUENCES
    assert made.ubatch_tokens <= made.batch_tokens
    assert made.running_sequences <= made.batch_tokens
    assert made.retained_tokens <= made.cache_tokens // 2


@pytest.mark.parametrize(
    ("sequences", "tokens_per_s", "batch"),
    [(64, 5000.0, 512), (64, 100.0, 512), (64, 20.0, 160), (64, 2.0, 64), (1, 1.0, 16)],
)
def test_a_slow_machine_takes_shorter_steps(
    sequences: int, tokens_per_s: float, batch: int
) -> None:
    paced = pace(plan(max_sequences=sequences), tokens_per_s, batch_asked=False)
    assert (paced.batch_tokens, paced.chunk_tokens) == (batch, batch)
    assert f"at most {batch} per step, while others wait {batch} or what takes 0.12 s" in paced.why
    asked = pace(plan(batch_size=300), tokens_per_s, batch_asked=True)
    assert (asked.batch_tokens, asked.chunk_tokens) == (300, 300)


def test_a_chunk_that_others_wait_for_is_one_piece_at_most() -> None:
    assert plan(n_gpu_layers=-1).chunk_tokens == 512
    assert plan(n_gpu_layers=-1, ubatch_size=1024).chunk_tokens == 1024
    assert plan(ubatch_size=64).chunk_tokens == 512


@pytest.mark.parametrize(
    ("asked", "size", "threads"),
    [(0, 8_000_000, 1), (0, 40 * 2**20, 2), (0, 10 * GIB, 8), (5, 1000, 5), (12, GIB, 12)],
)
def test_threads(asked: int, size: int, threads: int) -> None:
    assert num_threads("--n-threads", asked, size, cpus=8) == threads


def test_negative_threads_are_refused() -> None:
    with pytest.raises(BackendError, match=r"--n-threads is -1"):
        num_threads("--n-threads", -1, GIB, cpus=8)


def test_constants_are_llama_cpps() -> None:
    assert cpp.llama_max_parallel_sequences() == MAX_SEQUENCES
    assert BYTES_PER_VALUE.keys() == enums.CACHE_TYPES.keys()


def test_available_memory_is_the_lower_of_machine_and_container(tmp_path: Any) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    nowhere = tmp_path / "nowhere"
    assert available_bytes(meminfo, nowhere) == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available_bytes(meminfo, tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(meminfo, tmp_path) == 5000 * 1024
    assert available_bytes(nowhere, nowhere) == 4 * GIB
