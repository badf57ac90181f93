"""The types gate: strict on our own code, standard on what is written over PyTorch's types."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# transformers does not say what this returns: nobody can use it without unknown types.
UNKNOWN = """\
from transformers import AutoModelForCausalLM, PretrainedConfig


def width(config: PretrainedConfig) -> int:
    model = AutoModelForCausalLM.from_config(config)
    return model.config.hidden_size
"""
WRONG = "\n\nWIDTH: int = width(PretrainedConfig()).bit_length\n"


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """Which rules basedpyright names, by file, of a tree with our configuration."""
    tree = tmp_path_factory.mktemp("types")
    shutil.copy(ROOT / "pyproject.toml", tree)
    (tree / ".venv").symlink_to(Path(sys.executable).parents[1])
    for place, text in {
        "core/src/planted/unknown.py": UNKNOWN,
        "backends/torch/src/planted/unknown.py": UNKNOWN,
        "backends/torch/src/planted/wrong.py": UNKNOWN + WRONG,
    }.items():
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_text(text)
    command = [Path(sys.executable).with_name("basedpyright"), "--outputjson"]
    shown = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False).stdout
    found = {}
    for complaint in json.loads(shown)["generalDiagnostics"]:
        place = str(Path(complaint["file"]).resolve().relative_to(tree.resolve()))
        found.setdefault(place, set()).add(complaint["rule"])
    return found


def test_unknown_types_are_reported_of_our_own_code(complaints):
    assert "reportUnknownVariableType" in complaints["core/src/planted/unknown.py"]


def test_unknown_types_are_not_reported_of_torch_code(complaints):
    assert "backends/torch/src/planted/unknown.py" not in complaints


def test_wrong_types_are_reported_of_torch_code(complaints):
    assert complaints["backends/torch/src/planted/wrong.py"] == {"reportAssignmentType"}
