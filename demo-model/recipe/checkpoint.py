"""A stopped run on disk: weights, optimizer states and the step, as safetensors (no pickle)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.optim import Optimizer
from transformers import LlamaForCausalLM

_TIED = "lm_head.weight"  # the input embedding under another name


def save_checkpoint(
    path: Path, step: int, model: LlamaForCausalLM, optimizers: Sequence[Optimizer]
) -> None:
    """Writes `path` in one move, so that a stop while writing leaves the older one whole."""
    tensors = {
        f"model/{name}": tensor for name, tensor in model.state_dict().items() if name != _TIED
    }
    for number, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            for key, tensor in state.items():
                tensors[f"{number}/{parameter}/{key}"] = tensor
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step)})
    partial.replace(path)


def load_checkpoint(path: Path, model: LlamaForCausalLM, optimizers: Sequence[Optimizer]) -> int:
    """Restores model and optimizers in place and returns the step.

    Raises:
        FileNotFoundError: there is no checkpoint at `path`.
    """
    weights: dict[str, torch.Tensor] = {}
    states: dict[int, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
        for name in file.keys():  # noqa: SIM118 - not a mapping, and cannot be iterated
            if name.startswith("model/"):
                weights[name.removeprefix("model/")] = file.get_tensor(name)
            else:
                number, parameter, key = name.split("/")
                states[int(number)][int(parameter)][key] = file.get_tensor(name)
    weights[_TIED] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    for number, optimizer in enumerate(optimizers):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": dict(states[number]), "param_groups": groups})
    return step
