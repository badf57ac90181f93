"""What can be told before the weights are read is told before: those of a large model take minutes.

Here whoever reads a tensor fails.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.errors import BackplaneError
from backplane_torch.backend import TorchBackend
from backplane_torch.engine.checkpoint.safetensors_file import SafetensorsTensor

from tests.torch.models.tiny_checkpoint import VOCABULARY, Case, make_model, write_checkpoint

LLAMA = Case(
    model_type="llama",
    config={
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    },
)
MIXTRAL = Case(
    model_type="mixtral",
    config=LLAMA.config | {"num_local_experts": 4, "num_experts_per_tok": 2},
)
BLOOM = Case(
    model_type="bloom",
    config={"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
)
CASES = {"llama": LLAMA, "mixtral": MIXTRAL, "bloom": BLOOM}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in CASES}
    for name, folder in folders.items():
        write_checkpoint(make_model(CASES[name]), folder)
    return folders


@pytest.fixture
def copied(saved: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(saved[name], tmp_path / name))


@pytest.fixture(autouse=True)
def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: SafetensorsTensor, *_: object) -> None:
        raise AssertionError(f"{self.name} is read")

    monkeypatch.setattr(SafetensorsTensor, "read", read)


def refusal(folder: Path, *, block_size: int = 16, **flags: float) -> str:
    spec = RunnerSpec(
        model=ModelSource(model_id="m", path=str(folder)),
        engine=EngineSettings(**flags),
        settings={"threads": 1, "block_size": block_size},
    )
    with pytest.raises(BackplaneError) as raised:
        TorchBackend().create_runner(spec, lambda *_: None)
    return raised.value.message


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_without_a_fault_the_weights_are_read(saved: dict[str, Path]) -> None:
    for folder in saved.values():
        assert " is read" in refusal(folder)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"block_size": 0}, "--torch.block-size is 0, but must be at least 1"),
        ({"max_batch_size": 0}, "--max-batch-size is 0"),
        ({"max_batch_prefill_tokens": 0}, "--max-batch-prefill-tokens is 0"),
        ({"max_batch_total_tokens": -1}, "--max-batch-total-tokens is -1"),
        ({"max_total_tokens": 0}, "--max-total-tokens is 0"),
        ({"max_input_tokens": 0}, "--max-input-tokens is 0"),
        ({"max_total_tokens": 65}, "--max-total-tokens is 65, but the model sees 64 tokens"),
        (
            {"max_total_tokens": 129, "rope_factor": 2.0},
            "--max-total-tokens is 129, but the model sees 128 tokens, stretched by 2",
        ),
        ({"max_total_tokens": 1}, "a sequence of one token has no room"),
        ({"max_input_tokens": 64}, "--max-input-tokens is 64, but must be below"),
        ({"max_total_tokens": 9, "max_input_tokens": 9}, "--max-input-tokens is 9, but must be"),
        ({"max_total_tokens": 32, "max_batch_total_tokens": 16}, "--max-total-tokens is 32, but"),
        ({"max_batch_total_tokens": 1, "block_size": 1}, "a sequence of one token has no room"),
    ],
)
def test_flags(saved: dict[str, Path], flags: dict[str, float], message: str) -> None:
    assert refusal(saved["llama"], **flags).startswith(message)


def test_flags_of_a_model_without_an_end(saved: dict[str, Path]) -> None:
    told = refusal(saved["bloom"], max_total_tokens=9, max_input_tokens=9)
    assert told.startswith("--max-input-tokens is 9")


def test_a_broken_tokenizer(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    (folder / "tokenizer.json").write_text("{}")
    assert refusal(folder).startswith("tokenizer.json cannot be read")


def test_a_tokenizer_that_is_missing(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    (folder / "tokenizer.json").unlink()
    assert refusal(folder).startswith("the model has no tokenizer.json")


def test_a_wrong_size_in_the_configuration(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    edit_config(folder, intermediate_size=64)
    told = refusal(folder)
    assert "model.layers.0.mlp.down_proj.weight has shape [32, 48], and the config" in told
    assert "asks for [32, 64] and 5 more" in told


def test_a_layer_that_the_checkpoint_lacks(copied: Callable[[str], Path]) -> None:
    folder = copied("bloom")
    edit_config(folder, n_layer=3)
    assert " lacks tensor transformer.h.2." in refusal(folder)


def test_experts_that_are_merged_while_they_are_loaded(copied: Callable[[str], Path]) -> None:
    folder = copied("mixtral")
    edit_config(folder, num_local_experts=5)
    told = refusal(folder)
    assert "shape [4, 32, 48], and the configuration asks for [5, 32, 48]" in told
