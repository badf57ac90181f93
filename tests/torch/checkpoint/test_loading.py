"""Loaded models are what transformers itself would load, bit for bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from backplane_torch.engine.checkpoint.checkpoint import open_checkpoint
from backplane_torch.engine.checkpoint.config import read_config
from backplane_torch.engine.checkpoint.loading import LoadedModel
from backplane_torch.engine.checkpoint.model_class import ModelClass, find_model_class
from backplane_torch.engine.checkpoint.streaming import match_headers, stream
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tests.torch.checkpoint import checkpoints

Make = Callable[[], PreTrainedModel]
_KINDS = ("missing_keys", "unexpected_keys", "mismatched_keys")
MODELS = [checkpoints.llama, checkpoints.gpt2, checkpoints.mixtral, checkpoints.t5]


def same(loaded: LoadedModel, expected: PreTrainedModel) -> bool:
    ours, theirs = loaded.model.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    return all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name])
        for name in ours
    )


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", ["5GB", checkpoints.SMALL_SHARDS])
@pytest.mark.parametrize("make", MODELS)
def test_as_transformers_loads_it(
    make: Make, shards: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    saved = checkpoints.save(make, tmp_path, shards=shards)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 or shards != "5GB"
    loaded = checkpoints.load(tmp_path, dtype=dtype)
    assert same(loaded, type(saved).from_pretrained(tmp_path, dtype=dtype or "auto"))
    assert loaded.dtype == dtype or torch.float32
    assert loaded.warnings == ()


@pytest.mark.parametrize("make", MODELS)
def test_computes_what_was_saved(make: Make, tmp_path: Path) -> None:
    saved = checkpoints.save(make, tmp_path)
    loaded = checkpoints.load(tmp_path)
    inputs = {"input_ids": torch.arange(3, 9)[None]}
    if saved.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    torch.testing.assert_close(loaded.model(**inputs).logits, saved(**inputs).logits)


def test_ready_to_compute(llama_folder: Path) -> None:
    loaded = checkpoints.load(llama_folder, dtype=torch.bfloat16)
    parameters = list(loaded.model.parameters())
    assert not loaded.model.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in parameters)
    assert loaded.num_parameters == sum(parameter.numel() for parameter in parameters)
    assert loaded.config is loaded.model.config


def test_tied_weights_stay_one_and_count_once(tmp_path: Path) -> None:
    checkpoints.save(checkpoints.gpt2, tmp_path)
    loaded = checkpoints.load(tmp_path)
    head = loaded.model.get_output_embeddings()
    assert head is not None
    assert head.weight is loaded.model.get_input_embeddings().weight
    everything = sum(tensor.numel() for tensor in loaded.model.state_dict().values())
    assert loaded.num_parameters == everything - head.weight.numel()


def test_weights_are_in_memory_of_their_own(llama_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
    loaded = checkpoints.load(tmp_path)
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    file = tmp_path / "model.safetensors"
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    after = loaded.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_progress_counts_every_byte(sharded_folder: Path) -> None:
    reports: list[tuple[float, str]] = []
    checkpoints.load(sharded_folder, report=lambda *report: reports.append(report))
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert fractions.count(1.0) == 1  # a line of a log each
    assert len(fractions) > 10
    shards = {file.name for file in sharded_folder.glob("*.safetensors")}
    assert {name for _, name in reports[1:-1]} <= shards
    assert len(shards) > 2


def test_progress_ends_once_where_not_all_is_wanted(tmp_path: Path) -> None:
    model = checkpoints.save(checkpoints.llama, tmp_path)
    model.save_pretrained(tmp_path, state_dict={**model.state_dict(), "head": torch.ones(9999)})
    fractions: list[float] = []
    checkpoints.load(tmp_path, report=lambda fraction, _: fractions.append(fraction))
    assert fractions == sorted(fractions)
    assert fractions[-2] < fractions[-1] == 1.0


@pytest.mark.parametrize("make", MODELS)
def test_headers_tell_what_does_not_fit(make: Make, tmp_path: Path) -> None:
    model = checkpoints.save(make, tmp_path)
    wrong, missing, *_ = sorted(
        name for name in model.state_dict() if "norm" in name or "ln" in name
    )
    tensors = {**model.state_dict(), wrong: torch.ones(3), "head": torch.ones(9)}
    del tensors[missing]
    model.save_pretrained(tmp_path, state_dict=tensors)
    checkpoint = open_checkpoint(checkpoints.source(tmp_path), allow_pickle=False)
    config = read_config(tmp_path, trust_remote_code=False)
    made_by = find_model_class(config, tmp_path, trust_remote_code=False)
    told = match_headers(checkpoint, made_by)
    _, found = stream(checkpoint, made_by, {"dtype": torch.float32}, lambda *_: None)
    assert told is not None
    assert [told[kind] for kind in _KINDS] == [found[kind] for kind in _KINDS]
    assert [len(found[kind]) for kind in _KINDS] == [1, 1, 1]


def test_headers_do_not_do_where_values_are_looked_at(llama_folder: Path) -> None:
    class Curious(LlamaForCausalLM):
        def eval(self) -> "Curious":
            assert self.model.norm.weight.max().item()
            return super().eval()

    checkpoint = open_checkpoint(checkpoints.source(llama_folder), allow_pickle=False)
    config = read_config(llama_folder, trust_remote_code=False)
    made_by = ModelClass(model=Curious, config=config)
    assert match_headers(checkpoint, made_by) is None
    _, found = stream(checkpoint, made_by, {"dtype": torch.float32}, lambda *_: None)
    assert not found["missing_keys"]


def test_transformers_stays_as_loud_as_it_was(llama_folder: Path) -> None:
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_info()
    transformers_logging.enable_progress_bar()
    try:
        checkpoints.load(llama_folder)
        assert transformers_logging.get_verbosity() == transformers_logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.disable_progress_bar()


def test_nothing_is_printed(llama_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoints.load(llama_folder)
    assert capfd.readouterr() == ("", "")


def test_a_file_stands_for_its_folder(llama_folder: Path, sharded_folder: Path) -> None:
    whole = checkpoints.load(llama_folder / "model.safetensors")
    parts = sorted(sharded_folder.glob("*.safetensors"))
    assert same(checkpoints.load(parts[1]), whole.model)


def test_parts_without_an_index(sharded_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(sharded_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors.index.json").unlink()
    assert same(checkpoints.load(tmp_path), checkpoints.load(sharded_folder).model)


def test_a_changed_configuration_is_taken(llama_folder: Path) -> None:
    config = read_config(llama_folder, trust_remote_code=False)
    config.rms_norm_eps = 0.5
    loaded = checkpoints.load(llama_folder, config=config)
    assert loaded.config.rms_norm_eps == 0.5


@pytest.mark.parametrize(
    ("named", "expected"), [("float16", torch.float16), (None, torch.bfloat16)]
)
def test_a_checkpoints_own_dtype(named: str | None, expected: torch.dtype, tmp_path: Path) -> None:
    checkpoints.save(checkpoints.llama, tmp_path, dtype=torch.bfloat16)
    checkpoints.edit_json(tmp_path / "config.json", dtype=named)
    assert checkpoints.find(tmp_path).dtype == expected
    loaded = checkpoints.load(tmp_path)
    assert loaded.dtype == expected
    assert loaded.model.dtype == expected


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_what_answers_begin_with(name: str, tmp_path: Path) -> None:
    checkpoints.save(checkpoints.t5, tmp_path)
    (tmp_path / "generation_config.json").write_text("{}")
    checkpoints.edit_json(tmp_path / name, decoder_start_token_id=7, forced_bos_token_id=5)
    if name == "config.json":
        (tmp_path / "generation_config.json").unlink()
    generation = checkpoints.load(tmp_path).model.generation_config
    assert (generation.decoder_start_token_id, generation.forced_bos_token_id) == (7, 5)


def test_the_dtype_of_a_whole_model_is_that_of_its_part(tmp_path: Path) -> None:
    checkpoints.save(checkpoints.gemma3, tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    assert "dtype" not in text
    checkpoints.edit_json(tmp_path / "config.json", dtype="bfloat16")
    assert checkpoints.find(tmp_path).dtype == torch.bfloat16


def test_tensors_that_nobody_wants_are_named_and_left_out(tmp_path: Path) -> None:
    model = checkpoints.save(checkpoints.llama, tmp_path)
    extra = {f"reward_head.{number}.weight": torch.ones(2) for number in range(5)}
    model.save_pretrained(tmp_path, state_dict={**model.state_dict(), **extra})
    loaded = checkpoints.load(tmp_path)
    assert " ".join(loaded.warnings) == (
        f"{tmp_path / 'model.safetensors'} holds tensors that LlamaForCausalLM has no use for: "
        "reward_head.0.weight, reward_head.1.weight, reward_head.2.weight and 2 more"
    )
    assert same(loaded, model)


def test_leftovers_of_old_versions_are_no_news(tmp_path: Path) -> None:
    model = checkpoints.save(checkpoints.llama, tmp_path)
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    model.save_pretrained(tmp_path, state_dict={**model.state_dict(), **old})
    assert checkpoints.load(tmp_path).warnings == ()


@pytest.mark.parametrize("make", [checkpoints.gemma3, checkpoints.mistral3])
def test_of_a_model_that_sees_the_part_that_writes_is_taken(make: Make, tmp_path: Path) -> None:
    whole = checkpoints.save(make, tmp_path)
    loaded = checkpoints.load(tmp_path)
    ids = torch.arange(3, 9)[None]
    torch.testing.assert_close(loaded.model(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert loaded.config.model_type == whole.config.text_config.model_type
    assert "multi_modal_projector" in loaded.warnings[0]
    assert not any("vision" in name for name, _ in loaded.model.named_modules())
