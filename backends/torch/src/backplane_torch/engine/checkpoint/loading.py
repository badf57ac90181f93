"""From a model's folder to a model in memory, checked: what a runner calls."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from backplane_core.backend import ModelSource
from backplane_core.errors import BackendError
from transformers import PreTrainedConfig, PreTrainedModel

from backplane_torch.engine.checkpoint.checkpoint import local_folder, open_checkpoint
from backplane_torch.engine.checkpoint.config import read_config
from backplane_torch.engine.checkpoint.findings import check_findings, warnings_of
from backplane_torch.engine.checkpoint.model_class import find_model_class
from backplane_torch.engine.checkpoint.streaming import Report, stream


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that is ready to compute: in evaluation mode, without gradients.

    Attributes:
        config: the model's; of a checkpoint with several parts, the part's that was loaded.
        dtype: of its weights, but for what a class keeps in float32.
        num_parameters: tied ones count once.
        weight_bytes: parameters and buffers as they are in memory now.
        warnings: for the log, each in one line.
    """

    model: PreTrainedModel
    config: PreTrainedConfig
    dtype: torch.dtype
    num_parameters: int
    weight_bytes: int
    warnings: tuple[str, ...]


def load_model(
    source: ModelSource,
    *,
    config: PreTrainedConfig | None = None,
    dtype: torch.dtype | None,
    device: torch.device,
    attention: str | None,
    trust_remote_code: bool,
    allow_pickle: bool,
    report: Report,
) -> LoadedModel:
    """Load a local model; beside its weights, host memory holds a few tensors at a time.

    Args:
        source: its `path` is the model's folder, or a file of weights in that.
        config: what `read_config` gave, if it was changed since; None reads it.
        dtype: what weights are converted to; None is the `checkpoint_dtype`.
        device: where they go; any but the CPU takes the package accelerate.
        attention: the name of a registered attention function; None is the class's default.
        trust_remote_code: the repository's own code may run.
        allow_pickle: `.bin` files may be read, where there are no safetensors.
        report: told the fraction (0…1) of bytes read and the file's name, by one thread at a time
            but not always the same.

    Raises:
        ModelError: files are missing or damaged, no class computes the model, tensors are missing
            or of another shape than the configuration says, or memory does not suffice.
        BackendError: the package accelerate is missing.
    """
    folder = local_folder(source)
    config = config or read_config(folder, trust_remote_code=trust_remote_code)
    made_by = find_model_class(config, folder, trust_remote_code=trust_remote_code)
    checkpoint = open_checkpoint(source, allow_pickle=allow_pickle)
    dtype = dtype or _configured_dtype(config) or checkpoint.dtype
    options: dict[str, Any] = {"dtype": dtype, **_placement(device)}
    if attention is not None:
        options["attn_implementation"] = attention
    model, findings = stream(checkpoint, made_by, options, report)
    check_findings(findings, checkpoint)
    model.requires_grad_(requires_grad=False)
    return LoadedModel(
        model=model.eval(),
        config=model.config,
        dtype=dtype,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_bytes=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        warnings=warnings_of(findings, checkpoint, type(model).__name__),
    )


def checkpoint_dtype(
    source: ModelSource, config: PreTrainedConfig, *, allow_pickle: bool
) -> torch.dtype:
    """A checkpoint's own dtype: what its configuration says, else what most of it is stored in.

    Raises:
        ModelError: the configuration does not say, and files are missing or damaged.
    """
    dtype = _configured_dtype(config)
    return dtype or open_checkpoint(source, allow_pickle=allow_pickle).dtype


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
