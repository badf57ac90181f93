"""The llama.cpp backend passes the suite that every backend has to pass, on a tiny model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from backplane_core.backend import ModelSource
from backplane_core.testing.conformance import BackendConformance

from tests.llamacpp import tiny_lora
from tests.llamacpp.reference_llama import ReferenceLlama

# Of many tried, those whose greedy continuations are nowhere near a tie.
PROMPTS = ((284, 91), (284, 67), (284, 97), (284, 60))


class TestLlamaCpp(BackendConformance):
    backend = "llamacpp"
    model: ClassVar[ModelSource] = ModelSource(model_id="tiny")  # its path is known at run time
    # Float32 all through: what is left of rounding is far below what decides a draw.
    settings: ClassVar[Mapping[str, Any]] = {"type_k": "f32", "type_v": "f32"}
    near_tie_gap = 0.02

    def adapters(self, folder: Path) -> dict[str, Path]:
        return {
            name: tiny_lora.write(folder / f"{name}.gguf", seed=seed)
            for seed, name in enumerate(("one", "two"))
        }

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _tiny_model(cls, bpe_path: Path) -> None:
        cls.model = ModelSource(model_id="tiny", path=str(bpe_path), files=(bpe_path.name,))
        reference = ReferenceLlama()
        known = [reference.greedy(list(prompt), 16) for prompt in PROMPTS]
        assert min(least for _, least in known) > 5 * cls.near_tie_gap
        cls.golden = tuple(
            (prompt, tuple(output)) for prompt, (output, _) in zip(PROMPTS, known, strict=True)
        )
