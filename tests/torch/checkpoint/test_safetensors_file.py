"""Our reading of safetensors against that of the library: what it takes, and what it refuses."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from backplane_core.errors import ModelError
from backplane_torch.engine.checkpoint.safetensors_file import read_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32),
    *(torch.uint64, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    torch.complex64,
]
SHAPES = [(), (1,), (0,), (3, 0), (5,), (2, 3), (2, 1, 4)]
TENSORS = st.dictionaries(
    st.text(max_size=8).filter(str.isprintable),
    st.tuples(st.sampled_from(DTYPES), st.sampled_from(SHAPES)),
    max_size=6,
)


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    size = torch.Size(shape).numel() * dtype.itemsize
    top = 2 if dtype == torch.bool else 256
    values = torch.randint(0, top, (size,), dtype=torch.uint8, generator=generator)
    return values.view(dtype).view(shape)


def test_a_name_that_breaks_lines(path: Path) -> None:
    save_file({"two\nlines": torch.ones(2)}, path)
    with pytest.raises(ModelError, match=r"is damaged: 'two\\nlines' is no tensor's name"):
        read_safetensors(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safetensors") / "some.safetensors"


@given(kinds=TENSORS, metadata=st.none() | st.just({"format": "pt"}))
@settings(deadline=None, max_examples=80)
def test_what_the_library_writes(
    path: Path,
    kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]],
    metadata: dict[str, str] | None,
) -> None:
    written = {name: random_tensor(*kind) for name, kind in kinds.items()}
    save_file(written, path, metadata=metadata)
    found = read_safetensors(path)
    assert found.keys() == written.keys()
    for name, tensor in written.items():
        counted: list[int] = []
        values = found[name].read(counted.append)
        assert (values.dtype, values.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(
            values.contiguous().view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)
        )
        assert sum(counted) == found[name].num_bytes == tensor.nbytes
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tuple(tensor.shape))


def is_taken_by_the_library(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                file.get_tensor(name)
    except (SafetensorError, ValueError, OSError):
        return False
    return True


def refusal_of(path: Path) -> str:
    """What we say against a file; nothing if we take it."""
    try:
        for tensor in read_safetensors(path).values():
            tensor.read(lambda num_bytes: None)
    except ModelError as error:
        return str(error)
    return ""


GOOD = save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)})


@given(
    start=st.integers(0, len(GOOD)),
    length=st.integers(0, 12),
    replacement=st.binary(max_size=12),
)
@settings(deadline=None, max_examples=300)
def test_whatever_is_spoiled_we_take_no_more_than_the_library(
    path: Path, start: int, length: int, replacement: bytes
) -> None:
    path.write_bytes(GOOD[:start] + replacement + GOOD[start + length :])
    told = refusal_of(path)
    assert told or is_taken_by_the_library(path)
    assert "\n" not in told


ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "F8_E5M2", "x"]),
        "shape": st.lists(st.integers(-2, 4), max_size=2),
        "data_offsets": st.tuples(st.integers(-4, 24), st.integers(-4, 24)),
    }
)


@given(header=st.dictionaries(st.sampled_from("abc"), ENTRIES), num_bytes=st.integers(0, 32))
@settings(deadline=None, max_examples=300)
def test_whatever_a_header_says(path: Path, header: dict[str, Any], num_bytes: int) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(num_bytes))
    told = refusal_of(path)
    assert told or is_taken_by_the_library(path)
    assert "\n" not in told
    good = {name: {**entry, "dtype": "F32"} for name, entry in header.items()}
    end = 0
    for entry in good.values():
        entry["shape"] = [abs(size) for size in entry["shape"]]
        entry["data_offsets"] = (end, end + 4 * torch.Size(entry["shape"]).numel())
        end = entry["data_offsets"][1]
    text = json.dumps(good).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    assert refusal_of(path) == ""
    assert is_taken_by_the_library(path)
