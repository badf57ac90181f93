"""Models written in other types: they load, compute nearly the same, and failures leave no file."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from backplane_core.backend import ModelSource, RunnerSpec
from backplane_core.errors import BackendError, ModelError
from backplane_llamacpp.backend import LlamaCppBackend
from backplane_llamacpp.loading import load_model
from backplane_llamacpp.native.context import ContextOptions, NativeContext, TokenBatch
from backplane_llamacpp.quantization import QUANTIZATIONS, canonical
from backplane_llamacpp.settings import LlamaCppSettings

from tests.llamacpp import tiny_gguf
from tests.llamacpp.conftest import ignore_progress
from tests.llamacpp.test_runner import lone

# Rows of 256, which the k-quants need.
WIDE = tiny_gguf.Shape(width=256, feed_forward=256, layers=1)
PROMPT = [284, 72, 101, 108, 108, 111]


@pytest.fixture(scope="module")
def wide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("wide") / "wide-f32.gguf", shape=WIDE)


def quantize(
    source: Path, target: Path, quantization: str, progress: Any = ignore_progress
) -> Path:
    model = ModelSource(model_id=source.name, path=str(source))
    LlamaCppBackend().quantize(model, target, quantization, progress)
    return target


def logits_of(path: Path) -> np.ndarray:
    model = load_model(path, LlamaCppSettings(), ignore_progress)
    options = ContextOptions(
        n_ctx=256, n_batch=64, n_ubatch=64, n_seq_max=1, n_threads=1, n_threads_batch=1
    )
    context = NativeContext(model, options)
    batch = TokenBatch(len(PROMPT))
    batch.tokens[:] = PROMPT
    batch.positions[:] = range(len(PROMPT))
    batch.wants_logits[-1] = 1
    assert context.decode(batch, len(PROMPT)) == 0
    logits = context.logits(1)[0].copy()
    context.close()
    model.close()
    return logits


def types_in(path: Path) -> set[str]:
    return {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_type_that_is_promised_can_be_made_and_computes(
    wide_path: Path, tmp_path: Path, quantization: str
) -> None:
    made = quantize(wide_path, tmp_path / "made.gguf", quantization)
    assert np.isfinite(logits_of(made)).all()
    assert list(tmp_path.iterdir()) == [made]


@pytest.mark.parametrize(
    ("quantization", "type_name", "most_off"), [("q8_0", "Q8_0", 0.2), ("f16", "F16", 0.02)]
)
def test_weights_are_of_that_type_and_nearly_the_same(
    wide_path: Path, tmp_path: Path, quantization: str, type_name: str, most_off: float
) -> None:
    made = quantize(wide_path, tmp_path / "made.gguf", quantization)
    assert type_name in types_in(made)
    assert made.stat().st_size < 0.6 * wide_path.stat().st_size
    original = logits_of(wide_path)
    assert np.abs(logits_of(made) - original).max() < most_off < np.abs(original).max() / 5


def test_a_quantized_model_is_served_and_says_what_it_is(wide_path: Path, tmp_path: Path) -> None:
    made = quantize(wide_path, tmp_path / "wide-Q4_K_M.gguf", "Q4_K_M")
    spec = RunnerSpec(
        model=ModelSource(model_id="wide", path=str(made)), settings={"ctx_size": 512}
    )
    runner = LlamaCppBackend().create_runner(spec, ignore_progress)
    assert runner.info.model.quantization == "Q4_K_M"
    assert len(lone(runner, PROMPT, max_new_tokens=9)) == 9
    runner.close()


def test_parts_become_one_file(split_paths: list[Path], tmp_path: Path) -> None:
    made = quantize(split_paths[1], tmp_path / "whole.gguf", "f16")
    whole = tiny_gguf.write(tmp_path / "tiny.gguf")
    assert np.abs(logits_of(made) - logits_of(whole)).max() < 0.05


def test_progress_names_each_tensor(wide_path: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, float, str]] = []
    quantize(wide_path, tmp_path / "made.gguf", "q8_0", lambda *report: seen.append(report))
    assert {stage for stage, _, _ in seen} == {"quantize"}
    fractions = [fraction for _, fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert "output.weight" in {detail for _, _, detail in seen}


def test_an_interruption_is_not_swallowed_and_leaves_nothing(
    wide_path: Path, tmp_path: Path
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(wide_path, tmp_path / "made.gguf", "q8_0", stop)
    assert not list(tmp_path.iterdir())


def test_quantizing_twice_is_refused(wide_path: Path, tmp_path: Path) -> None:
    once = quantize(wide_path, tmp_path / "once.gguf", "q8_0")
    with pytest.raises(ModelError, match=r"holds q8_0 weights.*f16, bf16 or f32"):
        quantize(once, tmp_path / "twice.gguf", "q4_0")
    assert list(tmp_path.iterdir()) == [once]


@pytest.mark.parametrize(
    ("quantization", "says"),
    [
        ("awq", "llama.cpp makes no awq .*it makes: q4_k_m"),
        ("iq2_xxs", "iq2_xxs needs an importance matrix"),
        ("", "llama.cpp makes no"),
    ],
)
def test_what_cannot_be_made_is_refused(
    wide_path: Path, tmp_path: Path, quantization: str, says: str
) -> None:
    with pytest.raises(BackendError, match=says):
        quantize(wide_path, tmp_path / "made.gguf", quantization)
    assert not list(tmp_path.iterdir())


def test_names_are_taken_in_any_case_and_short() -> None:
    assert canonical("Q4_K_M") == "q4_k_m"
    assert canonical("q5_K") == "q5_k_m"


def test_broken_sources_are_the_models_fault(wide_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "made.gguf"
    with pytest.raises(ModelError, match="no file or folder"):
        quantize(tmp_path / "nowhere.gguf", target, "q8_0")
    page = tmp_path / "page.gguf"
    page.write_text("<html>")
    with pytest.raises(ModelError, match="is no GGUF file"):
        quantize(page, target, "q8_0")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(wide_path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cannot write .* as q8_0"):
        quantize(cut, target, "q8_0")
    assert not target.exists()


def test_a_folder_that_is_not_there_is_the_disks_fault(wide_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be written"):
        quantize(wide_path, tmp_path / "nowhere" / "made.gguf", "q8_0")
