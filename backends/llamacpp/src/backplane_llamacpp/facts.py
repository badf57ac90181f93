"""What a loaded model says of itself: name, sizes, chat templates."""

from pathlib import Path

from backplane_core.backend import ModelSource
from backplane_core.capabilities import Capabilities
from backplane_core.chat_templates import find_chat_templates
from backplane_core.guidance.kinds import supported_kinds
from backplane_core.messages import ModelInfo
from backplane_core.vocabulary import Vocabulary

from backplane_llamacpp import installation
from backplane_llamacpp.native import enums
from backplane_llamacpp.native.devices import native_devices
from backplane_llamacpp.native.model import NativeModel
from backplane_llamacpp.settings import BACKEND, LlamaCppSettings

_TEMPLATE = "tokenizer.chat_template"
_MAX_TOP_LOGPROBS = 100


def chat_templates(metadata: dict[str, str], source: ModelSource) -> dict[str, str]:
    """Name → Jinja source; the unnamed one is "default".

    Files of the model's folder go before what its GGUF says: people mend a template there. Beside
    a model that is one file of a folder, they may be another's.
    """
    folder = Path(source.path or "")
    if source.path is not None and folder.is_dir() and (found := find_chat_templates(folder)):
        return found
    templates = {
        key.removeprefix(_TEMPLATE).removeprefix(".") or "default": source
        for key, source in metadata.items()
        if key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")
    }
    return dict(sorted(templates.items()))


def model_info(
    model: NativeModel,
    metadata: dict[str, str],
    settings: LlamaCppSettings,
    source: ModelSource,
    path: Path,
) -> ModelInfo:
    """The facts a server shows of the model loaded from `path`."""
    dtype, quantization = enums.dtype_and_quantization(int(metadata.get("general.file_type", -1)))
    kind = "gpu" if settings.n_gpu_layers else "cpu"
    names = [device.name for device in native_devices() if device.kind == kind]
    details = {"file": path.name, "name": metadata.get("general.name", "")}
    return ModelInfo(
        model_id=source.model_id,
        revision=source.revision,
        backend=BACKEND,
        backend_version=installation.bindings_version() or "",
        device=", ".join(names) or kind,
        architecture=metadata.get("general.architecture"),
        dtype=dtype,
        quantization=quantization,
        num_parameters=model.n_params,
        detail={key: value for key, value in details.items() if value},
    )


def capabilities(model: NativeModel, vocabulary: Vocabulary) -> Capabilities:
    """What the runner honours for this model."""
    return Capabilities(
        sampling=(
            *("watermark", "logit_bias", "repetition_penalty", "frequency_penalty"),
            *("presence_penalty", "temperature", "top_k", "top_p", "min_p", "typical_p", "seed"),
        ),
        stopping=("min_new_tokens", "stop_token_ids", "ignore_eos"),
        max_top_logprobs=min(_MAX_TOP_LOGPROBS, model.n_vocab),
        prompt_logprobs=True,
        multiple_sequences=True,
        grammars=supported_kinds(vocabulary),
        adapters=True,
        quantizations=("gguf",),
        prefix_cache=True,
        deterministic_seeds=True,
    )
