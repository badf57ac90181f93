"""What a loaded model says of itself: name, sizes, capabilities."""

import importlib.metadata

import torch
from backplane_core.backend import RunnerSpec
from backplane_core.batching.executor import ExecutorTraits
from backplane_core.capabilities import Capabilities
from backplane_core.guidance.kinds import supported_kinds
from backplane_core.messages import ModelInfo
from backplane_core.vocabulary import Vocabulary

from backplane_torch.engine.checkpoint.loading import LoadedModel
from backplane_torch.engine.devices.device import TorchDevice

_MAX_TOP_LOGPROBS = 100


def model_info(
    loaded: LoadedModel, spec: RunnerSpec, device: TorchDevice, *, backend: str, path: str
) -> ModelInfo:
    """The facts a server shows; `path` says how keys and values are kept."""
    return ModelInfo(
        model_id=spec.model.model_id,
        revision=spec.model.revision,
        backend=backend,
        backend_version=str(torch.__version__),  # its own type is no plain string
        device=device.name,
        architecture=type(loaded.model).__name__,
        dtype=str(loaded.dtype).removeprefix("torch."),
        quantization=spec.engine.quantize,
        num_parameters=loaded.num_parameters,
        detail={
            "cache": path,
            "transformers": importlib.metadata.version("transformers"),
        },
    )


def capabilities(
    vocabulary: Vocabulary, traits: ExecutorTraits, quantizations: tuple[str, ...]
) -> Capabilities:
    """What the runner honours for this model."""
    return Capabilities(
        sampling=(
            *("watermark", "logit_bias", "repetition_penalty", "frequency_penalty"),
            *("presence_penalty", "temperature", "top_k", "top_p", "min_p", "typical_p", "seed"),
        ),
        stopping=("min_new_tokens", "stop_token_ids", "ignore_eos"),
        max_top_logprobs=min(_MAX_TOP_LOGPROBS, len(vocabulary.tokens)),
        prompt_logprobs=traits.max_scored_tokens > 0,
        multiple_sequences=True,
        grammars=supported_kinds(vocabulary),
        quantizations=quantizations,
        prefix_cache=traits.reusable,
        deterministic_seeds=True,
    )
