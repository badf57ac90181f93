"""Every fault of a checkpoint is planted, and told in one line that names file and tensor."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from backplane_core.errors import BackendError, ModelError
from backplane_torch.engine.checkpoint.checkpoint import open_checkpoint
from safetensors.torch import load_file, save_file

from tests.torch.checkpoint import checkpoints

EMBEDDING = "model.embed_tokens.weight"
LAST = "model.norm.weight"
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
Spoil = Callable[[Path], None]


@pytest.fixture
def llama(llama_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def sharded(sharded_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(sharded_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def refusal(folder: Path, **options: bool) -> str:
    """What a person is told: in one line, with what to do."""
    with pytest.raises(ModelError) as raised:
        checkpoints.load(folder, **options)
    assert raised.value.remedy
    assert "\n" not in str(raised.value)
    return raised.value.message


def cut(file: Path, num_bytes: int) -> None:
    file.write_bytes(file.read_bytes()[:num_bytes])


def header_length(file: Path) -> int:
    return int.from_bytes(file.read_bytes()[:8], "little")


# ── one file ─────────────────────────────────────────────────────────────────────────────


def test_empty(llama: Path) -> None:
    (llama / WHOLE).write_bytes(b"")
    assert refusal(llama) == f"{llama / WHOLE} is empty"


def test_a_git_lfs_pointer(llama: Path) -> None:
    (llama / WHOLE).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n"
    )
    assert refusal(llama) == f"{llama / WHOLE} is a Git LFS pointer and not the weights themselves"


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>", b"PK\x03\x04" * 9, b"\x08", b"\0" * 9]
)
def test_something_else(llama: Path, content: bytes) -> None:
    (llama / WHOLE).write_bytes(content)
    told = refusal(llama)
    assert told == f"{llama / WHOLE} is no safetensors file: it begins with {content[:16]!r}"


def test_cut_off_in_the_header(llama: Path) -> None:
    cut(llama / WHOLE, 100)
    assert refusal(llama) == f"{llama / WHOLE} is truncated: it ends at byte 100, within its header"


def test_cut_off_in_the_values_names_the_first_tensor_that_is_not_whole(llama: Path) -> None:
    file = llama / WHOLE
    starts = {
        entry["data_offsets"][0]: name
        for name, entry in json.loads(file.read_bytes()[8 : 8 + header_length(file)]).items()
        if name != "__metadata__"
    }
    third = sorted(starts)[2]
    cut(file, 8 + header_length(file) + third + 1)
    told = refusal(llama)
    assert told.startswith(f"{file} is truncated: tensor {starts[third]} should end at byte ")
    assert told.endswith(f"and there are {third + 1}")


def test_bytes_that_are_nobodys(llama: Path) -> None:
    with (llama / WHOLE).open("ab") as file:
        file.write(b"12345")
    assert refusal(llama) == (
        f"{llama / WHOLE} is damaged: 5 bytes after the last tensor belong to none"
    )


def _as(**changes: object) -> Callable[[dict[str, dict[str, object]]], None]:
    return lambda header: header[EMBEDDING].update(changes)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (_as(dtype="F8_E4M3"), ": tensor {} is of type F8_E4M3, which is not supported"),
        (_as(dtype="bf16"), ": tensor {} is of type bf16, which is not supported"),
        (
            _as(shape=[64, 33]),
            " is damaged: tensor {} takes 8192 bytes, and shape [64, 33] of F32 8448",
        ),
        (_as(shape=[-64, -32]), " is damaged: tensor {} has negative sizes"),
        (_as(shape="wide"), " is damaged: its header describes tensor {} wrongly (Expected"),
        (_as(data_offsets=[8192, 0]), " is damaged: tensor {} has negative sizes"),
        (_as(data_offsets=[4096, 12288]), " is damaged: tensor {} begins at byte 4096"),
        (lambda header: header.pop(EMBEDDING), " is damaged: tensor "),
        (
            lambda header: header.update({EMBEDDING: {}}),
            " is damaged: its header describes tensor {}",
        ),
    ],
)
def test_a_wrong_header(llama: Path, edit: Callable[..., None], says: str) -> None:
    checkpoints.edit_header(llama / WHOLE, edit)
    assert refusal(llama).startswith(f"{llama / WHOLE}{says.format(EMBEDDING)}")


def test_a_header_that_is_no_json(llama: Path) -> None:
    (llama / WHOLE).write_bytes((4).to_bytes(8, "little") + b"{]]}")
    assert refusal(llama).startswith(f"{llama / WHOLE} is damaged: its header is no JSON object (")


def test_a_file_that_shrinks_while_it_is_read(llama: Path) -> None:
    checkpoint = open_checkpoint(checkpoints.source(llama), allow_pickle=False)
    cut(llama / WHOLE, -100)
    with pytest.raises(ModelError, match=rf"{WHOLE} became shorter .*: tensor {LAST} is cut off"):
        checkpoint.tensors[LAST].read(lambda num_bytes: None)


def test_a_file_that_vanishes_while_it_is_loaded(llama: Path) -> None:
    def vanish(fraction: float, name: str) -> None:
        (llama / WHOLE).unlink(missing_ok=True)

    with pytest.raises(ModelError, match=rf"{WHOLE} cannot be read at tensor .*: No such file"):
        checkpoints.load(llama, report=vanish)


# ── several files ────────────────────────────────────────────────────────────────────────


def test_a_part_is_missing(sharded: Path) -> None:
    part = sorted(sharded.glob("*.safetensors"))[1]
    part.unlink()
    assert re.fullmatch(
        rf"{sharded}: model.safetensors is split into \d files, but part 2 is missing",
        refusal(sharded),
    )


def test_the_index_names_a_file_that_is_missing(sharded: Path) -> None:
    places = json.loads((sharded / INDEX).read_text())["weight_map"]
    checkpoints.edit_json(sharded / INDEX, weight_map={**places, LAST: "model-extra.safetensors"})
    assert refusal(sharded) == (
        f"{sharded / 'model-extra.safetensors'} is missing, which holds tensor {LAST}"
    )


def test_the_index_names_a_tensor_that_is_not_in_its_file(sharded: Path) -> None:
    places = json.loads((sharded / INDEX).read_text())["weight_map"]
    checkpoints.edit_json(sharded / INDEX, weight_map={**places, "model.gone": places[LAST]})
    assert refusal(sharded) == (
        f"{sharded / places[LAST]} lacks tensor model.gone, which {INDEX} says is in it"
    )


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_the_index_points_out_of_the_folder(sharded: Path, name: str) -> None:
    checkpoints.edit_json(sharded / INDEX, weight_map={LAST: name})
    assert refusal(sharded) == (
        f"{sharded / INDEX} says that tensor {LAST} is in {name!r}, which is not beside it"
    )


def test_a_tensor_is_in_two_files(sharded: Path) -> None:
    files = sorted(sharded.glob("*.safetensors"))
    save_file({**load_file(files[1]), **load_file(files[0])}, files[1])
    told = refusal(sharded)
    assert re.fullmatch(rf"tensor \S+ is both in {sharded}/\S+ and in model-0000\d-of-\S+", told)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", " is empty"),
        ("{}", " is no index of tensors: Object missing required field `weight_map`"),
        ('{"weight_map": {}}', " lists no tensors"),
        ('{"weight_map": ', " is no index of tensors: Input data was truncated"),
    ],
)
def test_a_broken_index(sharded: Path, text: str, says: str) -> None:
    (sharded / INDEX).write_text(text)
    assert refusal(sharded) == f"{sharded / INDEX}{says}"


# ── against the configuration ────────────────────────────────────────────────────────────


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WHOLE)
    change(tensors)
    save_file(tensors, folder / WHOLE, metadata={"format": "pt"})


def test_missing_tensors(llama: Path) -> None:
    _rewrite(llama, lambda tensors: [tensors.pop(name) for name in (LAST, "lm_head.weight")])
    assert refusal(llama) == f"{llama / WHOLE} lacks tensor lm_head.weight and 1 more"


def test_a_missing_tensor_of_a_sharded_model(sharded: Path) -> None:
    file = sharded / json.loads((sharded / INDEX).read_text())["weight_map"][LAST]
    tensors = load_file(file)
    del tensors[LAST]
    save_file(tensors, file)
    places = json.loads((sharded / INDEX).read_text())["weight_map"]
    checkpoints.edit_json(
        sharded / INDEX, weight_map={name: places[name] for name in places if name != LAST}
    )
    assert refusal(sharded) == f"{sharded / INDEX} lacks tensor {LAST}"


def test_both_ends_of_a_tie_missing(tmp_path: Path) -> None:
    checkpoints.save(checkpoints.gpt2, tmp_path)
    _rewrite(tmp_path, lambda tensors: tensors.pop("transformer.wte.weight"))
    assert refusal(tmp_path).startswith(f"{tmp_path / WHOLE} lacks tensor ")


def test_a_model_with_more_layers_than_the_checkpoint(llama: Path) -> None:
    checkpoints.edit_json(llama / "config.json", num_hidden_layers=3)
    assert refusal(llama) == (
        f"{llama / WHOLE} lacks tensor model.layers.2.input_layernorm.weight and 8 more"
    )


def test_another_shape_than_the_configuration_says(sharded: Path) -> None:
    checkpoints.edit_json(sharded / "config.json", vocab_size=65)
    places = json.loads((sharded / INDEX).read_text())["weight_map"]
    assert refusal(sharded) == (
        f"{sharded / places['lm_head.weight']}: tensor lm_head.weight has shape [64, 32], and the "
        "configuration asks for [65, 32] and 1 more"
    )


def test_one_of_many_experts_is_missing(tmp_path: Path) -> None:
    checkpoints.save(checkpoints.mixtral, tmp_path)
    name = "model.layers.1.block_sparse_moe.experts.2.w1.weight"
    _rewrite(tmp_path, lambda tensors: tensors.pop(name))
    assert refusal(tmp_path) == f"{tmp_path / WHOLE} lacks tensor {name}"


def test_fewer_experts_than_the_configuration_says(tmp_path: Path) -> None:
    checkpoints.save(checkpoints.mixtral, tmp_path)
    checkpoints.edit_json(tmp_path / "config.json", num_local_experts=5)
    told = refusal(tmp_path)
    assert told.startswith(f"{tmp_path / WHOLE}: tensor model.layers.0.mlp.experts.down_proj has ")
    assert "shape [4, 32, 48], and the configuration asks for [5, 32, 48]" in told


def test_a_configuration_that_the_class_refuses(llama: Path) -> None:
    checkpoints.edit_json(llama / "config.json", hidden_act="unheard_of")
    told = refusal(llama)
    assert told.startswith(f"{llama / WHOLE} does not load as LlamaForCausalLM: KeyError: ")
    assert "unheard_of" in told


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_what_answers_begin_with_is_no_id(llama: Path, name: str) -> None:
    (llama / "generation_config.json").unlink()
    if name != "config.json":
        (llama / name).write_text("{}")
    checkpoints.edit_json(llama / name, forced_bos_token_id="en")  # noqa: S106 -- no password
    assert refusal(llama).startswith(f"{llama / name} does not say what answers begin with: Exp")


# ── no weights, no place ─────────────────────────────────────────────────────────────────


def test_no_weights(llama: Path) -> None:
    (llama / WHOLE).unlink()
    assert refusal(llama).startswith(f"{llama} holds no weights in a format of transformers")


def test_no_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == f"there is no file or folder {tmp_path / 'nowhere'}"


def test_straight_onto_another_device_takes_a_package(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="straight onto cuda:0 takes the package accelerate"):
        checkpoints.load(llama, device=torch.device("cuda:0"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("can't allocate memory: 9"),
    ],
)
def test_no_room(llama: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(
        "backplane_torch.engine.checkpoint.safetensors_file.SafetensorsTensor.read", full
    )
    assert refusal(llama) == f"{llama / WHOLE} does not fit into memory: 0.0 GB"
