"""Every family's model computes the same once its linear layers are replaced."""

import pytest
import torch
from backplane_torch.engine.devices.cpu_linears import INT8, replace_linears
from backplane_torch.engine.devices.int8_linear import Int8Linear, computes_int8
from backplane_torch.engine.devices.packed_linear import PackedLinear, packs
from torch import nn

from tests.torch.cached.tiny_models import CONFIGS, VOCABULARY, tiny_model

needs_int8 = pytest.mark.skipif(not computes_int8(), reason="the CPU has no 8-bit products")


def prepared(name, quantize):
    model = tiny_model(name)
    replace_linears(model, quantize, lambda: 2**40, lambda _: None)
    return model


def logits(model):
    token_ids = torch.arange(9).unsqueeze(0) * 7 % VOCABULARY
    also = {"decoder_input_ids": token_ids} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        return model(input_ids=token_ids, **also).logits


@pytest.mark.skipif(not packs(torch.float32), reason="no packed layers here")
@pytest.mark.parametrize("name", CONFIGS)
def test_packed(name):
    model = prepared(name, None)
    assert any(isinstance(layer, PackedLinear) for layer in model.modules())
    torch.testing.assert_close(logits(model), logits(tiny_model(name)), rtol=1e-3, atol=1e-3)


@needs_int8
@pytest.mark.parametrize("name", CONFIGS)
def test_8_bits(name, monkeypatch):
    monkeypatch.setattr("backplane_torch.engine.devices.cpu_linears._INT8_NUMBERS", 0)
    plain = tiny_model(name)
    num_plain = sum(type(layer) is nn.Linear for layer in plain.modules())
    model = prepared(name, INT8)
    num_int8 = sum(isinstance(layer, Int8Linear) for layer in model.modules())
    # All but the head and what a state-space layer multiplies by itself.
    assert num_int8 >= num_plain - 1 - plain.config.num_hidden_layers
    given, wanted = logits(model).flatten(), logits(plain).flatten()
    assert torch.corrcoef(torch.stack([given, wanted]))[0, 1] > 0.9
