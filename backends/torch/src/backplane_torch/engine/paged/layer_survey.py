"""Which attention layers a loaded model has, and what each computes: found by running it once.

What a config says of it differs from family to family; what is asked of the attention function, and
which mask a layer is given, does not.
"""

import dataclasses
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from backplane_torch.engine.devices.attention import AttentionShape
from backplane_torch.engine.paged.attention_function import AttentionCall, attend, hang
from backplane_torch.engine.paged.mask_survey import make_mask, window_of
from backplane_torch.engine.paged.not_paged import LooksAheadError, NotPagedError

_SURVEY: Final = "backplane_survey"
_NUM_TOKENS: Final = 3
_LAYER_TYPES: Final = {"full_attention", "sliding_attention"}
# What is looked at, or says nothing that a paged cache would have to know.
_KNOWN_OPTIONS: Final = {
    *("scaling", "sliding_window", "softcap", "s_aux", "is_causal", "dropout"),
    *("position_ids", "output_attentions", "use_cache", "logits_to_keep"),
}

# What a model's code, which may be anybody's, raises where it is called without a cache.
_REFUSALS: Final = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)


@dataclasses.dataclass(frozen=True)
class SurveyedLayer:
    """An attention module and what it computes."""

    module: nn.Module
    shape: AttentionShape


def survey(model: PreTrainedModel) -> list[SurveyedLayer]:
    """The layers of a model, in the order in which they compute. The model stays as it is.

    Raises:
        NotPagedError: it keeps more than keys and values, or attends in a way that is not ours.
        LooksAheadError: it does not continue text at all.
    """
    if model.config.is_encoder_decoder:
        raise NotPagedError("it is an encoder and a decoder")
    config = model.config.get_text_config()
    layer_types: list[str] | None = getattr(config, "layer_types", None)
    if layer_types and (others := set(layer_types) - _LAYER_TYPES):
        raise NotPagedError(f"it has layers of {', '.join(sorted(others))}")
    surveyor = _Surveyor()
    positions = torch.arange(_NUM_TOKENS, device=model.device).unsqueeze(0)
    with _surveying(model, surveyor):
        logits = _logits(model, position_ids=positions)
        layers = surveyor.layers.copy()
        by_itself = _logits(model)
    if logits.shape[1] != 1:
        raise NotPagedError("it gives the logits of all tokens, whichever are asked for")
    if not torch.equal(logits, by_itself):
        raise NotPagedError("it does not count positions from 0")
    if len({id(layer.module) for layer in layers}) < len(layers):
        raise NotPagedError("one of its layers attends twice in a pass")
    if not layers:
        raise NotPagedError("none of its layers attends through the interface")
    if len(layers) != config.num_hidden_layers:
        raise NotPagedError(
            f"{len(layers)} of its {config.num_hidden_layers} layers attend through the interface"
        )
    if not isinstance(getattr(config, "max_position_embeddings", None), int):
        raise NotPagedError("its configuration does not say how many positions it has")
    return layers


@contextmanager
def _surveying(model: PreTrainedModel, surveyor: "_Surveyor") -> Generator[None]:
    """Have every call of its attention noted."""
    for module in model.modules():
        hang(module, surveyor)
    # What the public name below sets has itself no public name.
    own = model.config._attn_implementation or "eager"  # noqa: SLF001 -- as said
    model.set_attn_implementation(_SURVEY)
    try:
        with torch.inference_mode():
            yield
    except _REFUSALS as error:
        raise NotPagedError(f"it does not compute without a cache of its own: {error}") from error
    finally:
        model.set_attn_implementation(own)
        for module in model.modules():
            hang(module, None)


def _logits(model: PreTrainedModel, **positions: torch.Tensor) -> torch.Tensor:
    """Of the last token, asked for as the paged model does: by its row, without a cache."""
    rows = torch.arange(_NUM_TOKENS, device=model.device)
    token_ids = torch.zeros_like(rows).unsqueeze(0)
    # Looked up as a module, whose call says nothing of its arguments.
    call: nn.Module = model
    output = call(input_ids=token_ids, use_cache=False, logits_to_keep=rows[-1:], **positions)
    return output.logits


class _Surveyor:
    """Notes every call, and answers with zeros."""

    def __init__(self) -> None:
        self.layers: list[SurveyedLayer] = []

    def attend(self, call: AttentionCall) -> torch.Tensor:
        """Note a layer.

        Raises:
            NotPagedError: as `survey` says.
        """
        module, query, key, value, _, options = call
        window = window_of(call.mask, options.get("sliding_window"))
        for name, option in options.items():
            if name not in _KNOWN_OPTIONS and option is not None and option is not False:
                raise NotPagedError(f"its attention takes {name}")
        if options.get("is_causal") is False or not getattr(module, "is_causal", True):
            raise LooksAheadError
        if key.shape[1] != query.shape[1] or query.shape[1] != _NUM_TOKENS:
            raise NotPagedError("its tokens attend to something other than tokens")
        scaling = options.get("scaling")
        shape = AttentionShape(
            num_query_heads=query.shape[0],
            num_kv_heads=key.shape[0],
            key_width=key.shape[2],
            value_width=value.shape[2],
            scaling=query.shape[2] ** -0.5 if scaling is None else float(scaling),
            window=window,
            softcap=options.get("softcap"),
            has_sinks=options.get("s_aux") is not None,
        )
        self.layers.append(SurveyedLayer(module, shape))
        return query.new_zeros(query.shape[1], query.shape[0], value.shape[2])


AttentionInterface.register(_SURVEY, attend)
AttentionMaskInterface.register(_SURVEY, make_mask)
