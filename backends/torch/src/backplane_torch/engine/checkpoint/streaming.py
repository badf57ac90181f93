"""Tensors from files straight into a model.

transformers renames, merges, converts, places and ties them; reading is ours, and it is told.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import EllipsisType
from typing import Any, Final, cast

import torch
from backplane_core.errors import BackplaneError, ModelError
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from backplane_torch.engine.checkpoint.allocator import frees_at_once
from backplane_torch.engine.checkpoint.checkpoint import Checkpoint
from backplane_torch.engine.checkpoint.config import in_one_line
from backplane_torch.engine.checkpoint.findings import Findings, check_experts
from backplane_torch.engine.checkpoint.model_class import ModelClass
from backplane_torch.engine.checkpoint.stored_tensor import StoredTensor

Report = Callable[[float, str], None]

_REPORT_STEP: Final = 0.01


class _Meter:
    """Counts the bytes that several threads read, and reports every hundredth."""

    def __init__(self, num_bytes: int, report: Report) -> None:
        self._num_bytes = max(1, num_bytes)
        self._report = report
        self._lock = threading.Lock()
        self._done = 0
        self._reported = 0.0

    def advance(self, num_bytes: int, file_name: str) -> None:
        with self._lock:
            self._done += num_bytes
            fraction = min(1.0, self._done / self._num_bytes)
            if fraction >= self._reported + _REPORT_STEP:
                self._reported = fraction
                self._report(fraction, file_name)


class _LazyTensor:
    """A tensor as transformers expects it: read when indexed with `...`, in one of its threads.

    A slice of safetensors' own does the same, but maps the file.
    """

    def __init__(self, stored: StoredTensor, meter: _Meter) -> None:
        self._stored = stored
        self._meter = meter

    def __getitem__(self, index: EllipsisType) -> torch.Tensor:
        if index is not ...:
            raise TypeError(f"a part of tensor {self._stored.name} is asked for: {index}")
        name = self._stored.path.name
        return self._stored.read(lambda num_bytes: self._meter.advance(num_bytes, name))


def stream(
    checkpoint: Checkpoint, made_by: ModelClass, options: dict[str, Any], report: Report
) -> tuple[PreTrainedModel, Findings]:
    """Make a model and fill it from a checkpoint.

    Args:
        checkpoint: checked; each of its tensors that the model wants is read once.
        made_by: the class, its configuration, and the names of its tensors.
        options: for the class's `from_pretrained`: dtype, attention, device map.
        report: see `load_model`.

    Returns:
        The model, and what did not fit: the caller must not use one that lacks tensors.

    Raises:
        ModelError: reading fails, the class refuses its configuration, experts are missing, or
            memory does not suffice.
    """
    meter = _Meter(checkpoint.num_bytes, report)
    report(0.0, checkpoint.path.name)
    try:
        with _quiet(), frees_at_once():
            loaded = made_by.model.from_pretrained(
                None,
                config=made_by.config,
                state_dict={
                    name: _LazyTensor(stored, meter) for name, stored in checkpoint.tensors.items()
                },
                key_mapping=made_by.renames or None,
                ignore_mismatched_sizes=True,  # they are in the findings, with their shapes
                output_loading_info=True,
                **options,
            )
    except BackplaneError:
        raise
    except Exception as error:  # a model's class is anybody's code
        if _is_out_of_memory(error):
            raise ModelError(
                f"{checkpoint.path} does not fit into memory: {checkpoint.num_bytes / 1e9:.1f} GB",
                remedy="choose a smaller model, or a smaller --dtype",
            ) from error
        check_experts(checkpoint)
        raise ModelError(
            f"{checkpoint.path} does not load as {made_by.model.__name__}: {in_one_line(error)}",
            remedy="check that config.json and the weights are the same model's",
        ) from error
    report(1.0, checkpoint.path.name)
    return cast("tuple[PreTrainedModel, Findings]", loaded)


@contextmanager
def _quiet() -> Generator[None]:
    """Keep transformers' progress bars and tables of tensors off the terminal: we say it all."""
    verbosity, had_bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "can't allocate memory" in str(error)
    )
