"""`.bin` files: read by flag alone, tensors alone, and every fault in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from backplane_core.errors import ModelError
from backplane_torch.engine.checkpoint.pickled_file import read_pickled
from safetensors.torch import load_file

from tests.torch.checkpoint import checkpoints

WHOLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"


class Trap:
    """Unpickled, it would be heard of."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("the pickle was run",)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """GPT-2, both ends of its tie stored, as `.bin` files have them."""
    checkpoints.save(checkpoints.gpt2, tmp_path, dtype=torch.bfloat16)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    torch.save(tensors, tmp_path / WHOLE)
    return tmp_path


def without_safetensors(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    return folder


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name])
        for name in ours
    )


def test_not_without_the_flag(pickled: Path) -> None:
    folder = without_safetensors(pickled)
    with pytest.raises(ModelError) as raised:
        checkpoints.load(folder)
    assert raised.value.message == f"{folder / WHOLE} is a pickle, and there are no safetensors"
    assert "--torch.allow-pickle" in str(raised.value.remedy)


def test_not_where_there_are_safetensors(pickled: Path) -> None:
    (pickled / WHOLE).write_bytes(b"rubbish")
    checkpoints.load(pickled, pickles=True)


@pytest.mark.parametrize("dtype", [None, torch.float32])
@pytest.mark.parametrize("mapped", [True, False])
def test_the_same_model(pickled: Path, dtype: torch.dtype | None, mapped: bool) -> None:
    expected = checkpoints.load(pickled, dtype=dtype).model
    folder = without_safetensors(pickled)
    if not mapped:
        tensors = torch.load(folder / WHOLE, weights_only=True)
        torch.save(tensors, folder / WHOLE, _use_new_zipfile_serialization=False)
    reports: list[float] = []
    loaded = checkpoints.load(
        folder, dtype=dtype, pickles=True, report=lambda fraction, _: reports.append(fraction)
    )
    assert same(loaded.model, expected)
    assert loaded.warnings == ()
    assert len(reports) > 10
    head = loaded.model.get_output_embeddings()
    assert head is not None
    assert head.weight is loaded.model.get_input_embeddings().weight


def test_in_parts(pickled: Path) -> None:
    expected = checkpoints.load(pickled).model
    tensors = torch.load(without_safetensors(pickled) / WHOLE, weights_only=True)
    (pickled / WHOLE).unlink()
    names = sorted(tensors)
    places: dict[str, str] = {}
    for number, half in enumerate((names[::2], names[1::2]), start=1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: tensors[name] for name in half}, pickled / file)
        places |= dict.fromkeys(half, file)
    (pickled / INDEX).write_text(json.dumps({"weight_map": places}))
    assert same(checkpoints.load(pickled, pickles=True).model, expected)


def test_weights_are_in_memory_of_their_own(pickled: Path) -> None:
    folder = without_safetensors(pickled)
    loaded = checkpoints.load(folder, pickles=True)
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    with (folder / WHOLE).open("r+b") as file:
        file.write(bytes((folder / WHOLE).stat().st_size))
    after = loaded.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_view_is_read_as_what_it_shows(tmp_path: Path) -> None:
    square = torch.arange(12.0).reshape(3, 4)
    torch.save({"turned": square.t(), "row": square[1]}, tmp_path / WHOLE)
    counted: list[int] = []
    tensors = read_pickled(tmp_path / WHOLE)
    turned = tensors["turned"].read(counted.append)
    assert turned.is_contiguous()
    assert torch.equal(turned, square.t())
    assert torch.equal(tensors["row"].read(counted.append), square[1])
    assert counted == [48, 16]
    assert (tensors["turned"].shape, tensors["turned"].dtype) == ((4, 3), torch.float32)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"weight": torch.ones(2), "trap": Trap()},
            " holds more than tensors: print",
        ),
        ([torch.ones(2)], " holds a list instead of tensors by name"),
        ({"state_dict": {"weight": torch.ones(2)}}, ": state_dict is a dict and no tensor"),
        ({"weight": torch.ones(2), "step": 3}, ": step is a int and no tensor"),
    ],
)
def test_nothing_but_tensors(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / WHOLE)
    with pytest.raises(ModelError) as raised:
        read_pickled(tmp_path / WHOLE)
    assert raised.value.message.startswith(f"{tmp_path / WHOLE}{says}")
    assert "safetensors" in str(raised.value.remedy)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda content: b"", " is empty"),
        (lambda content: content[:500], " is truncated or no PyTorch file: PytorchStreamReader"),
        (lambda content: b"<html>", " is truncated or no PyTorch file: Weights only load failed"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1", " is a Git LFS pointer"),
    ],
)
def test_what_is_no_checkpoint(pickled: Path, spoil: Callable[[bytes], bytes], says: str) -> None:
    file = pickled / WHOLE
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ModelError) as raised:
        read_pickled(file)
    assert raised.value.message.startswith(f"{file}{says}")
    assert "\n" not in str(raised.value)
