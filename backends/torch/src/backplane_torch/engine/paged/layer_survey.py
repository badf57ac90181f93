"""Which attention layers a loaded model has, and what each computes: found by running it once.

What a config says of it differs from family to family; what is asked of the attention function does
not.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from backplane_torch.engine.devices.attention import AttentionShape
from backplane_torch.engine.paged.attention_function import hang

_NUM_TOKENS: Final = 3
_LAYER_TYPES: Final = {"full_attention", "sliding_attention"}
# What is looked at, or says nothing that a paged cache would have to know.
_KNOWN_OPTIONS: Final = {
    *("scaling", "sliding_window", "softcap", "s_aux", "is_causal", "dropout"),
    *("position_ids", "output_attentions", "use_cache", "logits_to_keep"),
}


@dataclasses.dataclass(frozen=True)
class SurveyedLayer:
    """An attention module and what it computes."""

    module: nn.Module
    shape: AttentionShape


class NotPagedError(Exception):
    """The model cannot run over a paged cache; the message says why."""


def survey(model: PreTrainedModel) -> list[SurveyedLayer]:
    """The layers of a model loaded with our attention, in the order in which they compute.

    Raises:
        NotPagedError: it keeps more than keys and values, or attends in a way that is not ours.
    """
    config = model.config.get_text_config()
    layer_types: list[str] | None = getattr(config, "layer_types", None)
    if layer_types and (others := set(layer_types) - _LAYER_TYPES):
        raise NotPagedError(f"it has layers of {', '.join(sorted(others))}")
    surveyor = _Surveyor()
    for module in model.modules():
        hang(module, surveyor)
    token_ids = torch.zeros(1, _NUM_TOKENS, dtype=torch.long, device=model.device)
    positions = torch.arange(_NUM_TOKENS, device=model.device).unsqueeze(0)
    try:
        with torch.inference_mode():
            model(input_ids=token_ids, position_ids=positions, use_cache=False)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise NotPagedError(f"it does not compute without a cache of its own: {error}") from error
    finally:
        for module in model.modules():
            hang(module, None)
    layers = surveyor.layers
    if len({id(layer.module) for layer in layers}) < len(layers):
        raise NotPagedError("one of its layers attends twice in a pass")
    if len(layers) != config.num_hidden_layers:
        raise NotPagedError(
            f"{len(layers)} of its {config.num_hidden_layers} layers attend through the interface"
        )
    return [
        _with_window(layer, kind, config)
        for layer, kind in zip(layers, layer_types or [""] * len(layers), strict=True)
    ]


class _Surveyor:
    """Notes every call, and answers with zeros."""

    def __init__(self) -> None:
        self.layers: list[SurveyedLayer] = []

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        """Note a layer.

        Raises:
            NotPagedError: as `survey` says.
        """
        for name, option in options.items():
            if name not in _KNOWN_OPTIONS and option is not None and option is not False:
                raise NotPagedError(f"its attention takes {name}")
        if options.get("is_causal") is False or not getattr(module, "is_causal", True):
            raise NotPagedError("its tokens see those that follow them")
        if key.shape[1] != query.shape[1] or query.shape[1] != _NUM_TOKENS:
            raise NotPagedError("its tokens attend to something other than tokens")
        scaling = options.get("scaling")
        window = options.get("sliding_window")
        shape = AttentionShape(
            num_query_heads=query.shape[0],
            num_kv_heads=key.shape[0],
            key_width=key.shape[2],
            value_width=value.shape[2],
            scaling=query.shape[2] ** -0.5 if scaling is None else float(scaling),
            window=int(window) if window else None,
            softcap=options.get("softcap"),
            has_sinks=options.get("s_aux") is not None,
        )
        self.layers.append(SurveyedLayer(module, shape))
        return query.new_zeros(query.shape[1], query.shape[0], value.shape[2])


def _with_window(layer: SurveyedLayer, kind: str, config: Any) -> SurveyedLayer:
    """Some models tell the window to a mask alone, which they do not make for us."""
    if kind != "sliding_attention" or layer.shape.window is not None:
        return layer
    shape = dataclasses.replace(layer.shape, window=int(config.sliding_window))
    return dataclasses.replace(layer, shape=shape)
