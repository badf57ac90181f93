"""Loading real files: what works, what is refused, and that each flag arrives."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.errors import BackendError, ModelError
from backplane_llamacpp import facts
from backplane_llamacpp.backend import LlamaCppBackend
from backplane_llamacpp.limits import make_plan
from backplane_llamacpp.loading import (
    load_model,
    load_options,
    open_context,
    shape_of,
)
from backplane_llamacpp.native import context as native_context
from backplane_llamacpp.native.model import NativeModel, supports_gpu_offload
from backplane_llamacpp.settings import LlamaCppSettings

from tests.llamacpp import tiny_gguf
from tests.llamacpp.conftest import ignore_progress

CPU_ONLY = pytest.mark.skipif(supports_gpu_offload(), reason="this llama.cpp has a GPU")


def test_a_split_model_loads_from_its_first_part(
    split_paths: list[Path], bpe_model: NativeModel
) -> None:
    model = load_model(split_paths[0], LlamaCppSettings(), ignore_progress)
    assert model.n_params == bpe_model.n_params
    assert model.size_bytes == bpe_model.size_bytes
    model.close()


def test_progress_rises_to_one(bpe_path: Path) -> None:
    seen: list[tuple[str, float | None]] = []
    model = load_model(
        bpe_path,
        LlamaCppSettings(),
        lambda stage, fraction=None, detail="": seen.append((stage, fraction)),
    )
    model.close()
    fractions = [fraction for _, fraction in seen]
    assert {stage for stage, _ in seen} == {"load"}
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_an_exception_in_the_progress_sink_ends_loading(bpe_path: Path) -> None:
    def stop(stage: str, fraction: float | None = None, detail: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_model(bpe_path, LlamaCppSettings(), stop)


def test_files_that_are_no_model(tmp_path: Path, bpe_path: Path) -> None:
    def load(path: Path) -> None:
        load_model(path, LlamaCppSettings(), ignore_progress)

    with pytest.raises(ModelError, match=r"cannot read .*: No such file"):
        load(tmp_path / "nothing.gguf")
    page = tmp_path / "page.gguf"
    page.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelError, match=r"no GGUF file: it begins with b'vers'.*Git LFS"):
        load(page)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(bpe_path.read_bytes()[:60_000])
    with pytest.raises(ModelError, match=r"llama.cpp cannot load .*cut.gguf: .*(file|data|tensor)"):
        load(cut)
    strange = tiny_gguf.write(tmp_path / "strange.gguf", architecture="nosuch")
    with pytest.raises(ModelError, match="unknown model architecture: 'nosuch'"):
        load(strange)


@CPU_ONLY
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_gpu_layers": -1}, "--n-gpu-layers -1, but the installed llama.cpp sees no GPU"),
        ({"split_mode": "row"}, "--split-mode row splits over GPUs, but none is used"),
        ({"split_mode": "0"}, "--split-mode 0 splits over GPUs, but none is used"),
        ({"defrag_threshold": 0.1}, "--defrag-threshold 0.1: .*no defragmentation any more"),
        ({"numa": "mirror"}, "--numa mirror: .*does nothing for it"),
    ],
)
def test_flags_that_cannot_be_honoured_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BackendError, match=says):
        load_options(LlamaCppSettings(**settings))


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "MMAP"),
        ({"disable_mmap": True}, "NONE"),
        ({"use_mlock": True}, "MMAP_MLOCK"),
        ({"disable_mmap": True, "use_mlock": True}, "MLOCK"),
    ],
)
def test_mmap_and_mlock_choose_the_load_mode(settings: dict[str, Any], mode: str) -> None:
    from llama_cpp import llama_cpp as cpp

    options = load_options(LlamaCppSettings(**settings))
    assert options.load_mode == getattr(cpp, f"LLAMA_LOAD_MODE_{mode}")


def test_a_refused_lock_is_an_error(tmp_path: Path) -> None:
    """In a child whose limit is lowered, and which may not lock beyond its limit as root may."""
    path = tiny_gguf.write(tmp_path / "m.gguf", shape=tiny_gguf.Shape(width=128, feed_forward=512))
    program = f"""
import ctypes
# PR_CAPBSET_DROP does not take a held capability away; capset to nothing does.
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, nothing) == 0
from pathlib import Path
from backplane_core.errors import BackendError
from backplane_llamacpp.loading import load_model
from backplane_llamacpp.settings import LlamaCppSettings
try:
    load_model(Path({str(path)!r}), LlamaCppSettings(use_mlock=True), lambda *_: None)
except BackendError as error:
    print(error)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096)),
    )
    assert "--use-mlock: the system refused to lock the weights" in answer.stdout
    assert "ulimit -l" in answer.stdout


def capture_params(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """The parameters that reach llama_init_from_model."""
    seen: list[Any] = []
    real = native_context.cpp.llama_init_from_model

    def spy(model: Any, params: Any) -> Any:
        seen.append(params)
        return real(model, params)

    monkeypatch.setattr(native_context.cpp, "llama_init_from_model", spy)
    return lambda: seen[-1]


def test_context_flags_arrive(bpe_model: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    cpp = native_context.cpp
    settings = LlamaCppSettings(
        ctx_size=512,
        batch_size=96,
        ubatch_size=48,
        max_sequences=3,
        n_threads=1,
        n_threads_batch=2,
        disable_offload_kqv=True,
        disable_flash_attention=True,
        type_k="f32",
        type_v="bf16",
    )
    params = capture_params(monkeypatch)
    shape = shape_of(bpe_model, bpe_model.metadata())
    plan = make_plan(shape, 2**30, settings, EngineSettings())
    open_context(bpe_model, plan, settings).close()
    assert (params().n_ctx, params().n_batch, params().n_ubatch) == (512, 96, 48)
    assert params().n_seq_max == plan.num_sequences == 6
    assert (params().n_threads, params().n_threads_batch) == (1, 2)
    assert params().offload_kqv is False
    assert params().flash_attn_type == cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    assert (params().type_k, params().type_v) == (cpp.GGML_TYPE_F32, 30)


def test_a_float32_cache_excludes_flash_attention(
    bpe_model: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would round it to float16 in every step."""
    params = capture_params(monkeypatch)
    shape = shape_of(bpe_model, bpe_model.metadata())
    for settings, kind in (
        (LlamaCppSettings(type_k="f32"), "DISABLED"),
        (LlamaCppSettings(type_v="f32"), "DISABLED"),
        (LlamaCppSettings(), "AUTO"),
    ):
        plan = make_plan(shape, 2**30, settings, EngineSettings())
        open_context(bpe_model, plan, settings).close()
        expected = getattr(native_context.cpp, f"LLAMA_FLASH_ATTN_TYPE_{kind}")
        assert params().flash_attn_type == expected


def test_a_quantized_cache_without_flash_attention_is_refused(bpe_model: NativeModel) -> None:
    shape = shape_of(bpe_model, bpe_model.metadata())
    for settings in (
        LlamaCppSettings(type_v="q8_0", disable_flash_attention=True),
        LlamaCppSettings(type_v="q8_0", type_k="f32"),
    ):
        plan = make_plan(shape, 2**30, settings, EngineSettings())
        with pytest.raises(BackendError, match="--type-v q8_0 needs flash attention"):
            open_context(bpe_model, plan, settings)


def test_a_context_llama_cpp_refuses_quotes_why(bpe_model: NativeModel) -> None:
    settings = LlamaCppSettings(type_k="q8_0")  # heads of 8 do not fill a block of 32
    plan = make_plan(shape_of(bpe_model, bpe_model.metadata()), 2**30, settings, EngineSettings())
    with pytest.raises(BackendError, match="K cache type q8_0 with block size 32"):
        open_context(bpe_model, plan, settings)


def test_the_shape_of_a_model(bpe_model: NativeModel) -> None:
    shape = shape_of(bpe_model, bpe_model.metadata())
    assert shape.n_ctx_train == 512
    assert shape.key_values == shape.value_values == 2 * 2 * 8
    assert shape.size_bytes == bpe_model.size_bytes > 100_000
    assert not shape.has_state


def test_facts(bpe_model: NativeModel, bpe_path: Path) -> None:
    metadata = bpe_model.metadata()
    info = facts.model_info(
        bpe_model, metadata, LlamaCppSettings(), ModelSource(model_id="o/m"), bpe_path
    )
    assert (info.model_id, info.backend, info.architecture) == ("o/m", "llamacpp", "llama")
    assert (info.dtype, info.quantization) == ("f32", None)
    assert info.num_parameters == bpe_model.n_params
    assert info.detail == {"file": "tiny-bpe.gguf", "name": "tiny"}


def test_a_folders_chat_template_goes_before_the_files_own(
    bpe_model: NativeModel, bpe_path: Path, tmp_path: Path
) -> None:
    metadata = bpe_model.metadata()
    own = {"default": tiny_gguf.CHAT_TEMPLATE, "tool_use": tiny_gguf.TOOL_TEMPLATE}
    for path in (None, str(bpe_path), str(tmp_path)):
        assert facts.chat_templates(metadata, ModelSource(model_id="m", path=path)) == own
    (tmp_path / "chat_template.jinja").write_text("mended")
    folder = ModelSource(model_id="m", path=str(tmp_path))
    assert facts.chat_templates(metadata, folder) == {"default": "mended"}
    file = ModelSource(model_id="m", path=str(tmp_path / "m.gguf"))
    assert facts.chat_templates(metadata, file) == own


def test_a_runner_needs_a_whole_split_model(tmp_path: Path, split_paths: list[Path]) -> None:
    lone = tmp_path / split_paths[0].name
    lone.write_bytes(split_paths[0].read_bytes())
    spec = RunnerSpec(model=ModelSource(model_id="m", path=str(lone)))
    with pytest.raises(ModelError, match="split into 3 files, but part 2, 3 is missing"):
        LlamaCppBackend().create_runner(spec, ignore_progress)
