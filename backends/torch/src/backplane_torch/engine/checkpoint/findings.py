"""How a checkpoint and a model differ, as transformers found when it put one into the other."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypedDict

from backplane_core.errors import ModelError

from backplane_torch.engine.checkpoint.checkpoint import Checkpoint

_EXPERT: Final = re.compile(r"(?P<head>.*\bexperts\.)(?P<number>\d+)\.(?P<tail>.+)")
_MOST_NAMED: Final = 3


class Findings(TypedDict):
    """What `from_pretrained` answers to `output_loading_info`. Names are the model's.

    Attributes:
        mismatched_keys: name, shape in the checkpoint, shape in the model.
    """

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, tuple[int, ...], tuple[int, ...]]]


def check_findings(findings: Findings, checkpoint: Checkpoint) -> None:
    """Refuse what would compute nonsense.

    Raises:
        ModelError: a tensor is missing, or has another shape than the model's.
    """
    missing = sorted(findings["missing_keys"])
    mismatched = sorted(findings["mismatched_keys"])
    if missing or mismatched:
        check_experts(checkpoint)
    if missing:
        raise _lacks(checkpoint, missing)
    if mismatched:
        name, stored, wanted = mismatched[0]
        raise ModelError(
            f"{_file_of(name, checkpoint)}: tensor {name} has shape {list(stored)}, and the "
            f"configuration asks for {list(wanted)}{_and_more(mismatched)}",
            remedy="take configuration and weights from the same model",
        )


def check_experts(checkpoint: Checkpoint) -> None:
    """Where experts are merged, one that is missing shows as a wrong shape: say which it is.

    Raises:
        ModelError: some tensor is there for some experts of a layer and not for others.
    """
    rows: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for match in filter(None, map(_EXPERT.fullmatch, checkpoint.tensors)):
        rows[match["head"]][match["tail"]].add(int(match["number"]))
    missing = [
        f"{head}{number}.{tail}"
        for head, tails in rows.items()
        for tail, numbers in tails.items()
        for number in sorted(set[int]().union(*tails.values()) - numbers)
    ]
    if missing:
        raise _lacks(checkpoint, missing)


def warnings_of(findings: Findings, checkpoint: Checkpoint, class_name: str) -> tuple[str, ...]:
    """What an operator should know: which tensors the model has no use for."""
    unexpected = sorted(findings["unexpected_keys"])
    if not unexpected:
        return ()
    named = ", ".join(unexpected[:_MOST_NAMED]) + _and_more(unexpected, _MOST_NAMED)
    return (f"{checkpoint.path} holds tensors that {class_name} has no use for: {named}",)


def _lacks(checkpoint: Checkpoint, names: list[str]) -> ModelError:
    return ModelError(
        f"{checkpoint.path} lacks tensor {names[0]}{_and_more(names)}",
        remedy="download it again, or check that it is the model that config.json describes",
    )


def _file_of(name: str, checkpoint: Checkpoint) -> Path:
    """Where a tensor of the model lies; the checkpoint may put a prefix to its name, or none."""
    found = {
        tensor.path
        for stored, tensor in checkpoint.tensors.items()
        if f".{stored}".endswith(f".{name}") or f".{name}".endswith(f".{stored}")
    }
    return found.pop() if len(found) == 1 else checkpoint.path


def _and_more(names: Iterable[object], named: int = 1) -> str:
    more = len(list(names)) - named
    return f" and {more} more" if more > 0 else ""
