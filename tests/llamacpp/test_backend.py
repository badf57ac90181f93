"""The backend as the launcher sees it: probing, settings, paths, and what importing it drags in."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from backplane_core.backend import Available, ModelSource, RunnerSpec, Unavailable, setting_fields
from backplane_core.errors import BackendError, ModelError
from backplane_core.registry import discover
from backplane_llamacpp.backend import LlamaCppBackend, local_path
from backplane_llamacpp.settings import LlamaCppSettings

from tests.llamacpp.conftest import ignore_progress

REMEDY = "install it: pip install 'llama-cpp-python>=0.3.36,<0.4'"


def test_it_is_available_here() -> None:
    answer = LlamaCppBackend().probe()
    assert isinstance(answer, Available)
    assert answer.version == importlib.metadata.version("llama-cpp-python")
    assert any((device.memory_bytes or 0) > 2**30 for device in answer.devices)


def pretend(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    def answer(name: str) -> str:
        assert name == "llama-cpp-python"
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", answer)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (None, "llama-cpp-python is not installed"),
        (
            "0.3.35",
            "llama-cpp-python 0.3.35 is installed, but 0.3.36 or a later 0.3 is needed",
        ),
        ("0.4.0", "llama-cpp-python 0.4.0 is installed, but 0.3.36 or a later 0.3 is needed"),
    ],
)
def test_missing_or_wrong_bindings_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch, version: str | None, reason: str
) -> None:
    pretend(monkeypatch, version)
    assert LlamaCppBackend().probe() == Unavailable(reason=reason, remedy=REMEDY)
    spec = RunnerSpec(model=ModelSource(model_id="m", path="/nowhere/m.gguf"))
    with pytest.raises(BackendError, match="llama-cpp-python"):
        LlamaCppBackend().create_runner(spec, ignore_progress)


@pytest.mark.parametrize("version", ["0.3.36", "0.3.37", "0.3.100"])
def test_later_bindings_will_do(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    pretend(monkeypatch, version)
    assert isinstance(LlamaCppBackend().probe(), Available)


def test_bindings_that_do_not_load_are_unavailable() -> None:
    program = (
        "import sys; sys.modules['llama_cpp'] = None\n"
        "from backplane_llamacpp.backend import LlamaCppBackend\n"
        "print(LlamaCppBackend().probe())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert "does not load" in answer.stdout
    assert "--force-reinstall" in answer.stdout


def test_discovery_finds_it_without_loading_an_engine() -> None:
    program = (
        "import sys, backplane_core.registry as registry\n"
        "print(sorted(registry.discover(only=['llamacpp']).backends))\n"
        "heavy = {'llama_cpp', 'numpy', 'torch'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert answer.stdout.splitlines() == ["['llamacpp']", "[]"]


def test_the_plugin_registers_the_backend() -> None:
    assert discover().backends["llamacpp"].backend is LlamaCppBackend


def test_flags_are_those_of_tgi() -> None:
    flags = {flag for field in setting_fields(LlamaCppSettings) for flag in field.flags}
    assert flags >= {
        *("--n-threads", "--n-threads-batch", "--n-gpu-layers", "--split-mode"),
        *("--defrag-threshold", "--numa", "--disable-mmap", "--use-mlock"),
        *("--disable-offload-kqv", "--disable-flash-attention", "--type-k", "--type-v"),
        *("--max-physical-batch-total-tokens", "--batch-size"),
    }
    assert all(field.help for field in setting_fields(LlamaCppSettings))


def test_settings_from_strings() -> None:
    settings = LlamaCppBackend.parse_settings(
        {"ctx_size": "4096", "use_mlock": "true", "type_k": "q8_0"}
    )
    assert settings == LlamaCppSettings(ctx_size=4096, use_mlock=True, type_k="q8_0")
    with pytest.raises(BackendError, match="q3_k"):
        LlamaCppBackend.parse_settings({"type_k": "q3_k"})
    with pytest.raises(BackendError, match="no setting colour"):
        LlamaCppBackend.parse_settings({"colour": "red"})


def test_local_path_of_files_and_folders(
    tmp_path: Path, bpe_path: Path, split_paths: list[Path]
) -> None:
    assert local_path(ModelSource(model_id="m", path=str(bpe_path))) == bpe_path
    # Any part of a split model stands for the whole, and so does its folder.
    assert local_path(ModelSource(model_id="m", path=str(split_paths[1]))) == split_paths[0]
    assert local_path(ModelSource(model_id="m", path=str(split_paths[0].parent))) == split_paths[0]
    nested = tmp_path / "Q8_0"
    nested.mkdir()
    (nested / "x-Q8_0.gguf").touch()
    (tmp_path / "x-Q4_K_M.gguf").touch()
    folder = ModelSource(model_id="m", path=str(tmp_path), variant="Q8_0")
    assert local_path(folder) == nested / "x-Q8_0.gguf"


def test_local_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has not been downloaded"):
        local_path(ModelSource(model_id="m"))
    with pytest.raises(ModelError, match="no file or folder"):
        local_path(ModelSource(model_id="m", path=str(tmp_path / "x.gguf")))
    with pytest.raises(ModelError, match="holds no GGUF model; it holds: nothing"):
        local_path(ModelSource(model_id="m", path=str(tmp_path)))
    (tmp_path / "a-00001-of-00002.gguf").touch()
    with pytest.raises(ModelError, match="part 2 is missing"):
        local_path(ModelSource(model_id="m", path=str(tmp_path / "a-00001-of-00002.gguf")))


def test_every_flag_is_documented() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "backends", "llamacpp.md").read_text()
    flags = {flag for field in setting_fields(LlamaCppSettings) for flag in field.flags}
    assert [flag for flag in sorted(flags) if f"`{flag}`" not in page] == []
