"""Which class computes a model: one of transformers that continues text, or the repository's own.

Of a model that also sees or hears, the part that writes is taken.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import transformers
from backplane_core.errors import ModelError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from backplane_torch.engine.checkpoint.config import TRUST_FLAG, in_one_line

_CHOOSE_ANOTHER: Final = "choose a model that continues text"
# What the tensors of the part that writes are called beside other parts, and what alone.
_TEXT_PART_NAMES: Final = {
    r"^language_model\.lm_head": "lm_head",
    r"^(model\.)?language_model\.(model\.)?": "model.",
}


@dataclass(frozen=True, kw_only=True)
class ModelClass:
    """How a model is made.

    Attributes:
        model: the class.
        config: for that class: of a model in parts, the part's.
        renames: patterns of tensors' names to what replaces them, before transformers' own.
    """

    model: type[PreTrainedModel]
    config: PreTrainedConfig
    renames: dict[str, str] = field(default_factory=dict[str, str])


def find_model_class(
    config: PreTrainedConfig, folder: Path, *, trust_remote_code: bool
) -> ModelClass:
    """The class for a configuration that `read_config` gave.

    Raises:
        ModelError: the model does not continue text (an encoder, a classifier), its weights are
            quantized, or no class for it is known that may be run and does run.
    """
    _check_unquantized(config, folder)
    auto_class = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    code: Mapping[str, str] = getattr(config, "auto_map", None) or {}
    if trust_remote_code and auto_class in code:
        return ModelClass(model=_from_repository(code[auto_class], folder), config=config)
    _check_architecture(config, folder)
    text = config.get_text_config(decoder=True)
    if config.is_encoder_decoder:
        model = _lookup(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, config)
    else:
        mapping = MODEL_FOR_CAUSAL_LM_MAPPING
        model = _lookup(mapping, text) or _lookup(mapping, config)
    if model is None:
        raise _no_class(config, folder, has_code=auto_class in code)
    # The decoder of an encoder and a decoder is no model by itself, though its config is of a kind.
    if text is config or config.is_encoder_decoder or model.config_class is not type(text):
        return ModelClass(model=model, config=config)
    part = deepcopy(text)
    # Where a head is stored as well, transformers finds that and does not tie it.
    part.tie_word_embeddings |= getattr(config, "tie_word_embeddings", False)
    return ModelClass(model=model, config=part, renames=_TEXT_PART_NAMES)


def _from_repository(reference: str, folder: Path) -> type[PreTrainedModel]:
    try:
        return get_class_from_dynamic_module(reference, folder)
    except Exception as error:  # anybody's code may raise anything
        raise ModelError(
            f"{folder}: the repository's code for {reference} does not run: {in_one_line(error)}",
            remedy=f"install what it asks for, or try the model without {TRUST_FLAG}",
        ) from error


def _lookup(mapping: Mapping[Any, Any], config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """The class for a configuration: of several, the one that it names, or else the first."""
    if type(config) not in mapping:
        return None
    found = mapping[type(config)]
    if not isinstance(found, tuple):
        return found
    named = (model for model in found if model.__name__ in (config.architectures or ()))
    return next(named, found[0])


def _check_unquantized(config: PreTrainedConfig, folder: Path) -> None:
    quantization: Any = getattr(config, "quantization_config", None)
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"{folder} holds quantized weights ({method or 'by an unknown method'}), which this "
            "backend does not compute with",
            remedy="choose the checkpoint that they were made from, in bfloat16 or float16",
        )


def _check_architecture(config: PreTrainedConfig, folder: Path) -> None:
    base = _lookup(MODEL_MAPPING, config)
    for name in config.architectures or ():
        known = getattr(transformers, name, None)
        # A base model may do: whether it lacks a head shows when its tensors are loaded.
        if isinstance(known, type) and known is not base and not _can_generate(known):
            raise ModelError(
                f"{folder} is a {name}, which does not continue text", remedy=_CHOOSE_ANOTHER
            )
    encodes = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_encoder_decoder
    if encodes and not getattr(config, "is_decoder", False):
        raise ModelError(
            f"{folder} is an encoder ({config.model_type}), which does not continue text",
            remedy=_CHOOSE_ANOTHER,
        )


def _can_generate(known: type[Any]) -> bool:
    return issubclass(known, PreTrainedModel) and known.can_generate()


def _no_class(config: PreTrainedConfig, folder: Path, *, has_code: bool) -> ModelError:
    remedy = f"if you trust the repository's code, have it run with {TRUST_FLAG}"
    return ModelError(
        f"{folder}: transformers {transformers.__version__} has no class that continues text for "
        f"models of type {config.model_type}",
        remedy=remedy if has_code else _CHOOSE_ANOTHER,
    )
