"""What the torch backend answers the launcher, which must not load torch for it."""

import subprocess
import sys
from pathlib import Path

import pytest
from backplane_core.backend import BestEffort, ModelSource, Native, RunnerSpec, Unsupported
from backplane_core.errors import BackendError
from backplane_torch.architectures import OWN_CACHE, PAGED, UNSUPPORTED
from backplane_torch.backend import TorchBackend

FILES = ("config.json", "model.safetensors", "tokenizer.json")


def source(architecture: str, *files: str, **fields: str) -> ModelSource:
    return ModelSource(
        model_id="owner/name",
        files=files or FILES,
        config={"architectures": [architecture]},
        **fields,
    )


def test_known_architectures_are_told_by_their_path() -> None:
    backend = TorchBackend()
    assert backend.supports(source("LlamaForCausalLM")) == Native()
    answer = backend.supports(source("BloomForCausalLM"))
    assert isinstance(answer, BestEffort)
    assert "cache of its own" in answer.reason
    answer = backend.supports(source("SomethingNewForCausalLM"))
    assert isinstance(answer, BestEffort)
    assert "SomethingNewForCausalLM is not among the tested" in answer.reason


def test_pickles_are_told_with_the_flag_that_reads_them() -> None:
    answer = TorchBackend().supports(source("LlamaForCausalLM", "config.json", "pytorch_model.bin"))
    assert isinstance(answer, BestEffort)
    assert "--torch.allow-pickle" in answer.reason


def test_of_a_local_file_there_is_nothing_to_choose(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    model = ModelSource(model_id=str(file), path=str(file), files=(file.name,))
    assert TorchBackend().select_files(model) == (file.name,)


def test_no_architecture_is_on_two_lists() -> None:
    assert not PAGED & OWN_CACHE
    assert not (PAGED | OWN_CACHE) & UNSUPPORTED.keys()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (source("LlamaForCausalLM", "model.gguf"), "holds no safetensors"),
        (source("LlamaForCausalLM", variant="Q4_K_M"), "Q4_K_M names a GGUF file"),
        (source("LlamaForCausalLM", gguf_file="a.gguf"), "a.gguf names a GGUF file"),
        (source("BaichuanForCausalLM"), "transformers has no class for it"),
    ],
)
def test_what_is_not_supported_is_told_with_its_reason(model: ModelSource, reason: str) -> None:
    answer = TorchBackend().supports(model)
    assert isinstance(answer, Unsupported)
    assert reason in answer.reason


def test_questions_are_answered_without_loading_torch() -> None:
    code = (
        "import sys\n"
        "from backplane_core.backend import ModelSource\n"
        "from backplane_torch.plugin import TorchBackend\n"
        "TorchBackend().probe()\n"
        "model = ModelSource(model_id='m', files=('config.json', 'model.safetensors'))\n"
        "TorchBackend().supports(model), TorchBackend().select_files(model)\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": -1}, "--torch.threads is -1"),
        ({"block_sizes": 1}, "has no setting block_sizes"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, int], message: str) -> None:
    spec = RunnerSpec(model=source("LlamaForCausalLM"), settings=settings)
    with pytest.raises(BackendError, match=message):
        TorchBackend().create_runner(spec, lambda *_: None)
