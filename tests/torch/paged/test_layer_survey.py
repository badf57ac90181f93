"""The survey finds each layer's attention as the model asks for it, or why it cannot be paged."""

from typing import Any

import pytest
import torch
from backplane_torch.engine.devices.attention import AttentionShape
from backplane_torch.engine.paged.attention_function import ATTENTION
from backplane_torch.engine.paged.layer_survey import survey
from backplane_torch.engine.paged.not_paged import LooksAheadError, NotPagedError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def model_of(model_type: str, **config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    made = AutoConfig.for_model(model_type, **config)
    return AutoModelForCausalLM.from_config(made, attn_implementation=ATTENTION).eval()


def test_grouped_queries_and_the_scale() -> None:
    layers = survey(model_of("llama", **SIZES))
    expected = AttentionShape(
        num_query_heads=4, num_kv_heads=2, key_width=8, value_width=8, scaling=8**-0.5
    )
    assert [layer.shape for layer in layers] == [expected] * 4
    assert [layer.module.layer_idx for layer in layers] == [0, 1, 2, 3]


def test_windows_layer_by_layer_and_softcaps() -> None:
    model = model_of(
        *("gemma2",),
        **SIZES,
        head_dim=16,
        sliding_window=24,
        attn_logit_softcapping=30.0,
        query_pre_attn_scalar=64,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    shapes = [layer.shape for layer in survey(model)]
    assert [shape.window for shape in shapes] == [24, None, 24, None]
    assert {shape.softcap for shape in shapes} == {30.0}
    assert {shape.scaling for shape in shapes} == {0.125}


def test_sinks() -> None:
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}
    shapes = [layer.shape for layer in survey(model_of("gpt_oss", **SIZES | experts))]
    assert all(shape.has_sinks for shape in shapes)


def test_a_survey_leaves_nothing_behind() -> None:
    model = model_of("llama", **SIZES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    survey(model)
    assert survey(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("model_type", "config", "reason"),
    [
        ("bloom", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "interface"),
        ("mamba", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}, "linear_att"),
        ("qwen3_next", SIZES | {"num_hidden_layers": 4, "head_dim": 8}, "linear_attention"),
    ],
)
def test_other_models_are_told_apart(model_type: str, config: dict[str, Any], reason: str) -> None:
    made = AutoConfig.for_model(model_type, **config)
    with pytest.raises(NotPagedError, match=reason):
        survey(AutoModelForCausalLM.from_config(made).eval())


def test_tokens_that_see_those_that_follow_them() -> None:
    made = AutoConfig.for_model("bert-generation", **SIZES, is_decoder=False)
    with pytest.raises(LooksAheadError):
        survey(AutoModelForCausalLM.from_config(made).eval())


def test_a_model_that_asks_for_a_cache_is_not_paged(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", **SIZES)

    def forward(past_key_values: Any = None, **inputs: Any) -> Any:
        return past_key_values.get_seq_length(), inputs

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(NotPagedError, match="get_seq_length"):
        survey(model)


def test_a_model_that_gives_all_logits_is_not_paged(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", **SIZES)
    whole = model.forward

    def forward(logits_to_keep: Any = 0, **inputs: Any) -> Any:
        del logits_to_keep
        return whole(**inputs)

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(NotPagedError, match="logits of all tokens"):
        survey(model)


def test_positions_that_begin_elsewhere_are_told_apart() -> None:
    config = {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}
    with pytest.raises(NotPagedError, match="does not count positions from 0"):
        survey(model_of("roberta", **config, is_decoder=True))
