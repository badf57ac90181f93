"""Tensors from files straight into a model, or their headers into one without values.

transformers renames, merges, converts, places and ties them; reading is ours, and it is told.
"""

import dataclasses
import logging
import threading
from collections.abc import Callable, Generator, Mapping
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

_log = logging.getLogger(__name__)

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

    def finish(self, file_name: str) -> None:
        """Report that all is read, unless it was: what nobody wants is not."""
        if self._reported < 1.0:
            self._report(1.0, file_name)


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


class _Header:
    """A tensor without values as transformers expects it: nothing is read, and no memory taken."""

    def __init__(self, stored: StoredTensor) -> None:
        self._stored = stored

    def __getitem__(self, index: EllipsisType) -> "_Header":
        return self

    def to(self, *, device: object, dtype: torch.dtype | None) -> torch.Tensor:
        """Wherever it is to go: what becomes of it there has a shape, and that is all."""
        del device
        return torch.empty(self._stored.shape, dtype=dtype or self._stored.dtype, device="meta")


def match_headers(checkpoint: Checkpoint, made_by: ModelClass) -> Findings | None:
    """What of a checkpoint would not fit, told by its headers alone.

    Returns:
        What `stream` would answer; None where that cannot be told without values.
    """
    headers = {name: _Header(stored) for name, stored in checkpoint.tensors.items()}
    try:
        return _fill(_without_values(made_by), headers, {"dtype": checkpoint.dtype})[1]
    except Exception as error:  # noqa: BLE001 -- anybody's code, which may look at values
        _log.info("%s is checked while it is read: %s", checkpoint.path, in_one_line(error))
        return None


def stream(
    checkpoint: Checkpoint, made_by: ModelClass, options: dict[str, Any], report: Report
) -> tuple[PreTrainedModel, Findings]:
    """Make a model and fill it from a checkpoint.

    Args:
        checkpoint: checked; each of its tensors that the model wants is read once.
        made_by: the class, its configuration, and the names of its tensors.
        options: for the class's `from_pretrained`: dtype, device map.
        report: see `load_model`.

    Returns:
        The model, and what did not fit: the caller must not use one that lacks tensors.

    Raises:
        ModelError: reading fails, the class refuses its configuration, experts are missing, or
            memory does not suffice.
    """
    meter = _Meter(checkpoint.num_bytes, report)
    report(0.0, checkpoint.path.name)
    tensors = {name: _LazyTensor(stored, meter) for name, stored in checkpoint.tensors.items()}
    try:
        with frees_at_once():
            loaded = _fill(made_by, tensors, options)
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
    meter.finish(checkpoint.path.name)
    return loaded


def _without_values(made_by: ModelClass) -> ModelClass:
    """The same by all names; what a checkpoint lacks is not drawn at random, as nobody uses it."""
    model = made_by.model
    fields = {"initialize_weights": lambda _: None, "__module__": model.__module__}
    return dataclasses.replace(made_by, model=type(model.__name__, (model,), fields))


def _fill(
    made_by: ModelClass, tensors: Mapping[str, _LazyTensor | _Header], options: dict[str, Any]
) -> tuple[PreTrainedModel, Findings]:
    with _quiet():
        loaded = made_by.model.from_pretrained(
            None,
            config=made_by.config,
            state_dict=tensors,
            key_mapping=made_by.renames or None,
            ignore_mismatched_sizes=True,  # they are in the findings, with their shapes
            output_loading_info=True,
            **options,
        )
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
