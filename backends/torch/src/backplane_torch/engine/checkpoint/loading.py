"""From a model's folder to a model in memory, checked before and after: what a runner calls."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from backplane_core.backend import ModelSource
from backplane_core.errors import BackendError
from transformers import PreTrainedConfig, PreTrainedModel

from backplane_torch.engine.checkpoint.checkpoint import Checkpoint, local_folder, open_checkpoint
from backplane_torch.engine.checkpoint.config import DecoderStart, read_decoder_start
from backplane_torch.engine.checkpoint.findings import check_findings, warnings_of
from backplane_torch.engine.checkpoint.model_class import ModelClass, find_model_class
from backplane_torch.engine.checkpoint.streaming import Report, match_headers, stream


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model on disk: its class is known, and what the headers tell of its tensors fits that.

    Attributes:
        checkpoint: its tensors.
        made_by: its class, and the configuration for that.
        dtype: its own: what its configuration says, else what most of it is stored in.
        start: what its answers begin with.
    """

    checkpoint: Checkpoint
    made_by: ModelClass
    dtype: torch.dtype
    start: DecoderStart

    @property
    def config(self) -> PreTrainedConfig:
        """That of the class; of a checkpoint with several parts, the part's that is loaded."""
        return self.made_by.config


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that is ready to compute: in evaluation mode, without gradients.

    Attributes:
        config: the model's.
        dtype: of its weights, but for what a class keeps in float32.
        num_parameters: tied ones count once.
        warnings: for the log, each in one line.
    """

    model: PreTrainedModel
    config: PreTrainedConfig
    dtype: torch.dtype
    num_parameters: int
    warnings: tuple[str, ...]


def find_model(
    source: ModelSource, config: PreTrainedConfig, *, trust_remote_code: bool, allow_pickle: bool
) -> FoundModel:
    """Check a local model as far as that goes without its tensors' values.

    Args:
        source: its `path` is the model's folder, or a file of weights in that.
        config: what `read_config` gave, or what was made of it since.
        trust_remote_code: the repository's own code may run.
        allow_pickle: `.bin` files may be read, where there are no safetensors.

    Raises:
        ModelError: files are missing or damaged, no class computes the model, or tensors are
            missing or of another shape than the configuration says.
    """
    folder = local_folder(source)
    made_by = find_model_class(config, folder, trust_remote_code=trust_remote_code)
    start = read_decoder_start(folder)
    checkpoint = open_checkpoint(source, allow_pickle=allow_pickle)
    if (findings := match_headers(checkpoint, made_by)) is not None:
        check_findings(findings, checkpoint)
    dtype = _configured_dtype(config) or checkpoint.dtype
    return FoundModel(checkpoint=checkpoint, made_by=made_by, dtype=dtype, start=start)


def load_model(
    found: FoundModel, *, dtype: torch.dtype | None, device: torch.device, report: Report
) -> LoadedModel:
    """Load a model; beside its weights, host memory holds a few tensors at a time.

    Args:
        found: what to load.
        dtype: what weights are converted to; None is the model's own.
        device: where they go; any but the CPU takes the package accelerate.
        report: told the fraction (0…1) of bytes read and the file's name, by one thread at a time
            but not always the same.

    Raises:
        ModelError: files change or cannot be read, tensors are missing or of another shape than the
            configuration says, or memory does not suffice.
        BackendError: the package accelerate is missing.
    """
    checkpoint, dtype = found.checkpoint, dtype or found.dtype
    options: dict[str, Any] = {"dtype": dtype, **_placement(device)}
    model, findings = stream(checkpoint, found.made_by, options, report)
    check_findings(findings, checkpoint)
    model.requires_grad_(requires_grad=False)
    for name, token_id in msgspec.structs.asdict(found.start).items():
        # A class that is handed tensors does not look for what else lies beside them.
        if token_id is not None and model.generation_config is not None:
            setattr(model.generation_config, name, token_id)
    return LoadedModel(
        model=model.eval(),
        config=model.config,
        dtype=dtype,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        warnings=warnings_of(findings, checkpoint, type(model).__name__),
    )


def _configured_dtype(config: PreTrainedConfig) -> torch.dtype | None:
    for part in (config, config.get_text_config(decoder=True)):
        if isinstance(part.dtype, torch.dtype):
            return part.dtype
    return None


def _placement(device: torch.device) -> dict[str, Any]:
    if device.type == "cpu":
        return {}
    if importlib.util.find_spec("accelerate") is None:
        raise BackendError(
            f"loading weights straight onto {device} takes the package accelerate",
            remedy="pip install accelerate",
        )
    return {"device_map": {"": device}}
