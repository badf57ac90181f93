"""The shipped demo model's files, read without torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED_FOLDER = ROOT / "launcher" / "src" / "backplane_launcher" / "demo_model"

# The recipe is a folder of scripts and not an installed package.
sys.path.insert(0, str(ROOT / "demo-model"))


@pytest.fixture(scope="session")
def shipped_folder() -> Path:
    return SHIPPED_FOLDER


@pytest.fixture(scope="session")
def shipped_json(shipped_folder: Path) -> Any:
    """A function that reads one of the shipped JSON files."""
    return lambda name: json.loads((shipped_folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def gguf_path(shipped_folder: Path) -> Path:
    (path,) = shipped_folder.glob("*.gguf")
    return path


@pytest.fixture(scope="session")
def gguf_reader(gguf_path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(gguf_path)


@pytest.fixture(scope="session")
def safetensors_header(shipped_folder: Path) -> dict[str, Any]:
    """Name -> {dtype, shape, data_offsets}."""
    with (shipped_folder / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


@pytest.fixture(scope="session")
def weights(
    shipped_folder: Path, safetensors_header: dict[str, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """The bfloat16 tensors as float32: a bfloat16 is the upper half of a float32."""
    content = (shipped_folder / "model.safetensors").read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    tensors = {}
    for name, entry in safetensors_header.items():
        start, end = entry["data_offsets"]
        halves = np.frombuffer(data[start:end], dtype="<u2").astype(np.uint32)
        tensors[name] = (halves << 16).view(np.float32).reshape(entry["shape"])
    return tensors
