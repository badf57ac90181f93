"""A step for which there is no memory is taken in smaller pieces, and the engine goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torch.models.tiny_checkpoint import VOCABULARY, Case, make_model, write_checkpoint

# Wide enough for a step's inner activations to be what does not fit.
WIDE = Case(
    model_type="llama",
    config={
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 16384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    },
)
SCRIPT = Path(__file__).with_name("starved_runner.py")


@pytest.mark.skipif(sys.platform != "linux", reason="limits an address space")
def test_less_memory_than_a_step_takes(tmp_path: Path) -> None:
    write_checkpoint(make_model(WIDE), tmp_path)
    command = [sys.executable, str(SCRIPT), str(tmp_path), "24"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    told = json.loads(ended.stdout.splitlines()[-1])
    assert len(told["before"]) == 8
    assert told["starved"] == told["after"] == told["before"]
    assert not told["errors"]
    assert "no memory for a step of 500 tokens" in ended.stderr
