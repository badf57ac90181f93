"""Configurations are read, or refused in a line that says what to do; code runs by flag alone."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from backplane_core.errors import ModelError
from backplane_torch.engine.checkpoint.config import read_config
from backplane_torch.engine.checkpoint.model_class import find_model_class
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    Gemma3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    WhisperConfig,
)

from tests.torch.checkpoint import checkpoints

REMOTE_CONFIG = """
from transformers import LlamaConfig
class OddConfig(LlamaConfig):
    model_type = "odd_remote"
"""
REMOTE_MODEL = """
from transformers import LlamaForCausalLM
from .configuration_odd import OddConfig
class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig
    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = -outputs.logits
        return outputs
"""


@pytest.fixture
def llama(llama_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def remote(llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with code of its own. What transformers copies of it goes away with it."""
    modules = llama / "modules"
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
    monkeypatch.syspath_prepend(modules)
    (llama / "configuration_odd.py").write_text(REMOTE_CONFIG)
    (llama / "modeling_odd.py").write_text(REMOTE_MODEL)
    checkpoints.edit_json(
        llama / "config.json",
        model_type="odd_remote",
        architectures=["OddForCausalLM"],
        auto_map={
            "AutoConfig": "configuration_odd.OddConfig",
            "AutoModelForCausalLM": "modeling_odd.OddForCausalLM",
        },
    )
    return llama


def refusal(folder: Path, *, trust_remote_code: bool = False) -> ModelError:
    with pytest.raises(ModelError) as raised:
        find(folder, trust_remote_code=trust_remote_code)
    assert raised.value.remedy
    assert "\n" not in str(raised.value)
    return raised.value


def find(folder: Path, *, trust_remote_code: bool = False) -> type[PreTrainedModel]:
    config = read_config(folder, trust_remote_code=trust_remote_code)
    return find_model_class(config, folder, trust_remote_code=trust_remote_code).model


# ── config.json ──────────────────────────────────────────────────────────────────────────


def test_a_configuration(llama: Path) -> None:
    config = read_config(llama, trust_remote_code=False)
    assert isinstance(config, LlamaConfig)
    assert (config.vocab_size, config.dtype) == (64, torch.float32)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", " is no JSON object: "),
        ("[1]", " is no JSON object: Expected `object`, got `array`"),
        ('{"model_type": "llama",', " is no JSON object: "),
        ("version https://git-lfs.github.com/spec/v1", " is no JSON object: "),
        ('{"model_type": "\xff"}', " is no JSON object: "),
        ("{}", " says no model_type"),
        ('{"model_type": ["llama"]}', ": transformers "),
    ],
)
def test_a_broken_configuration(llama: Path, text: str, says: str) -> None:
    (llama / "config.json").write_bytes(text.encode("latin-1"))
    assert refusal(llama).message.startswith(f"{llama / 'config.json'}{says}")


def test_no_configuration(llama: Path) -> None:
    (llama / "config.json").unlink()
    error = refusal(llama)
    assert error.message == f"{llama} holds no config.json, which says what kind of model it is"


def test_a_model_type_that_nobody_knows(llama: Path) -> None:
    checkpoints.edit_json(llama / "config.json", model_type="baichuan")
    error = refusal(llama)
    assert "knows no models of type baichuan" in error.message
    assert "upgrade transformers" in str(error.remedy)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("name", ["float61", "int8", "auto", 16, ["float16"]])
def test_a_dtype_that_is_none(llama: Path, key: str, name: object) -> None:
    checkpoints.edit_json(llama / "config.json", **{"dtype": None, key: name})
    error = refusal(llama)
    assert error.message == f"{llama / 'config.json'}: {key} {name!r} is no floating-point type"


@pytest.mark.parametrize("dtype", ["bfloat16", None])
def test_dtypes(llama: Path, dtype: str | None) -> None:
    checkpoints.edit_json(llama / "config.json", dtype=dtype)
    expected = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    assert checkpoints.load(llama).dtype == expected


def test_a_value_that_the_configurations_class_refuses(llama: Path) -> None:
    checkpoints.edit_json(llama / "config.json", hidden_size="wide")
    error = refusal(llama)
    assert error.message.startswith(f"{llama / 'config.json'} makes no configuration: ")
    assert "hidden_size" in error.message
    assert "wide" in error.message


# ── the repository's code ────────────────────────────────────────────────────────────────


def test_code_of_a_repository_is_run_by_flag_alone(remote: Path) -> None:
    error = refusal(remote)
    assert "models of type odd_remote are computed by code of their repository" in error.message
    assert "--trust-remote-code" in str(error.remedy)
    assert not (remote / "modules").exists()


def test_code_of_a_repository(remote: Path, llama_folder: Path) -> None:
    loaded = checkpoints.load(remote, trust_remote_code=True)
    ids = torch.arange(3, 9)[None]
    plain = checkpoints.load(llama_folder).model(input_ids=ids).logits
    assert type(loaded.model).__name__ == "OddForCausalLM"
    assert torch.equal(loaded.model(input_ids=ids).logits, -plain)


def test_code_for_a_model_that_transformers_knows(remote: Path) -> None:
    fields = json.loads((remote / "config.json").read_text())
    del fields["auto_map"]["AutoConfig"]
    fields |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (remote / "config.json").write_text(json.dumps(fields))
    assert find(remote) is LlamaForCausalLM
    assert find(remote, trust_remote_code=True).__name__ == "OddForCausalLM"


def test_code_without_a_model_class_that_continues_text(remote: Path) -> None:
    checkpoints.edit_json(
        remote / "config.json", auto_map={"AutoConfig": "configuration_odd.OddConfig"}
    )
    error = refusal(remote, trust_remote_code=True)
    assert "has no class that continues text for models of type odd_remote" in error.message


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("configuration_odd.py", "config.json makes no configuration: ValueError: not today"),
        ("modeling_odd.py", "the repository's code for modeling_odd.OddForCausalLM does not run"),
    ],
)
def test_code_that_does_not_run(remote: Path, file: str, says: str) -> None:
    (remote / file).write_text("raise ValueError('not today')")
    error = refusal(remote, trust_remote_code=True)
    assert says in error.message
    assert "ValueError: not today" in error.message
    assert "without --trust-remote-code" in str(error.remedy)


# ── classes ──────────────────────────────────────────────────────────────────────────────


def _write(folder: Path, config: object, *architectures: str) -> Path:
    assert isinstance(config, BertConfig | LlamaConfig | T5Config | WhisperConfig)
    config.architectures = list(architectures) or None
    config.save_pretrained(folder)
    return folder


def _bert(**changes: object) -> BertConfig:
    return BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, **changes)


@pytest.mark.parametrize(
    ("model_type", "architectures", "expected"),
    [
        ("t5", ["T5ForConditionalGeneration"], "T5ForConditionalGeneration"),
        ("t5", ["T5WithLMHeadModel"], "T5ForConditionalGeneration"),
        ("mt5", ["MT5ForConditionalGeneration"], MT5ForConditionalGeneration.__name__),
    ],
)
def test_encoder_decoders(
    tmp_path: Path, model_type: str, architectures: list[str], expected: str
) -> None:
    fields = {"model_type": model_type, "architectures": architectures}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert find(tmp_path).__name__ == expected


@pytest.mark.parametrize("names", [[], ["LlamaForCausalLM"], ["LlamaModel"], ["LLaMAForCausalLM"]])
def test_decoders_whatever_their_class_was_called(tmp_path: Path, names: list[str]) -> None:
    assert find(_write(tmp_path, LlamaConfig(), *names)) is LlamaForCausalLM


@pytest.mark.parametrize(
    ("config", "architecture", "says"),
    [
        (_bert(), BertForMaskedLM.__name__, "is a BertForMaskedLM, which does not continue text"),
        (_bert(), BertLMHeadModel.__name__, "is an encoder (bert), which does not continue text"),
        (_bert(), "BertModel", "is an encoder (bert), which does not continue text"),
        (LlamaConfig(), LlamaForSequenceClassification.__name__, "is a LlamaForSequenceClass"),
        (T5Config(), T5EncoderModel.__name__, "is a T5EncoderModel, which does not continue text"),
        (
            WhisperConfig(),
            "WhisperModel",
            "no class that continues text for models of type whisper",
        ),
    ],
)
def test_what_does_not_continue_text(
    tmp_path: Path, config: object, architecture: str, says: str
) -> None:
    assert says in refusal(_write(tmp_path, config, architecture)).message


def test_a_decoder_of_a_family_of_encoders(tmp_path: Path) -> None:
    folder = _write(tmp_path, _bert(is_decoder=True), BertLMHeadModel.__name__)
    assert find(folder) is BertLMHeadModel


@pytest.mark.parametrize("model_type", ["llama4", "mllama", "gemma3", "llava", "mistral3"])
def test_a_part_has_a_configuration_of_its_class(tmp_path: Path, model_type: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    config = read_config(tmp_path, trust_remote_code=False)
    found = find_model_class(config, tmp_path, trust_remote_code=False)
    assert type(found.config) is type(config.text_config) is found.model.config_class


@pytest.mark.parametrize(
    ("quantization", "method"), [({"quant_method": "gptq", "bits": 4}, "gptq"), ({"bits": 8}, "by")]
)
def test_quantized_weights(llama: Path, quantization: dict[str, object], method: str) -> None:
    checkpoints.edit_json(llama / "config.json", quantization_config=quantization)
    assert f"holds quantized weights ({method}" in refusal(llama).message


def test_the_part_that_writes(tmp_path: Path) -> None:
    checkpoints.save(checkpoints.gemma3, tmp_path)
    config = read_config(tmp_path, trust_remote_code=False)
    config.text_config.tie_word_embeddings = False
    found = find_model_class(config, tmp_path, trust_remote_code=False)
    assert found.model is Gemma3ForCausalLM
    assert found.config.tie_word_embeddings is config.tie_word_embeddings is True
    assert config.text_config.tie_word_embeddings is False
