"""Linear layers in the CPU's own forms, against plain ones."""

import gc
import weakref

import pytest
import torch
from backplane_core.errors import BackendError
from backplane_torch.engine.devices.cpu import CpuDevice
from backplane_torch.engine.devices.cpu_linears import replace_linears
from backplane_torch.engine.devices.int8_linear import Int8Linear, QuantizedInput, computes_int8
from backplane_torch.engine.devices.int8_rows import TorchRows, fastest_rows
from backplane_torch.engine.devices.native import library
from backplane_torch.engine.devices.packed_linear import PackedLinear, packs
from backplane_torch.engine.devices.panel_linear import PanelLinear
from backplane_torch.engine.devices.panel_product import multiplies
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

ROOM = 2**40
needs_int8 = pytest.mark.skipif(not computes_int8(), reason="the CPU has no 8-bit products")
KERNELS = library.load()
needs_panels = pytest.mark.skipif(
    KERNELS is None or not multiplies(KERNELS, torch.empty(32, 2, dtype=torch.bfloat16)),
    reason="nothing is compiled for this processor's bfloat16",
)
DTYPES = [
    pytest.param(
        dtype, marks=pytest.mark.skipif(not packs(dtype), reason=f"no packed {dtype} here")
    )
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(7)


class Layers(nn.Module):
    """Two layers that share an input, a third of GPT-2's kind."""

    def __init__(self, *, bias=True):
        super().__init__()
        self.left = nn.Linear(192, 160, bias=bias)
        self.right = nn.Linear(192, 96, bias=bias)
        self.turned = Conv1D(128, 256)

    def forward(self, given):
        return self.turned(torch.cat([self.left(given), self.right(given)], dim=-1))


def replaced(model, *, quantize=None, room=ROOM):
    told = []
    with torch.inference_mode():
        replace_linears(model, quantize, lambda: room, told.append)
    assert told == sorted(told)
    assert told[-1:] in ([], [1.0])
    return model


def run(model, given):
    with torch.inference_mode():
        return model(given)


def llama(**options):
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **options,
    )
    return LlamaForCausalLM(config).eval()


# ── packed ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def without_panels(monkeypatch):
    monkeypatch.setattr("backplane_torch.engine.devices.cpu_linears.multiplies", lambda *_: False)


@needs_panels
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 192), (1, 7, 192), (33, 192), (1, 0, 192)])
def test_layers_in_panels_compute_what_plain_ones_do(bias, shape):
    model = Layers(bias=bias).bfloat16()
    given = torch.randn(shape).bfloat16()
    before = run(model, given)
    after = run(replaced(model), given)
    assert {type(model.left), type(model.right), type(model.turned)} == {PanelLinear}
    assert after.shape == before.shape
    assert after.dtype == torch.bfloat16
    torch.testing.assert_close(after, before)


@needs_panels
def test_layers_that_panels_do_not_divide_are_packed():
    model = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 64), nn.Linear(64, 64)).bfloat16()
    assert [type(layer) for layer in replaced(model)] == [PackedLinear, PanelLinear, PanelLinear]
    model = replaced(nn.Sequential(nn.Linear(33, 64)).bfloat16())
    assert type(model[0]) is PackedLinear
    model = replaced(nn.Sequential(nn.Linear(64, 64)))
    assert type(model[0]) is PackedLinear


@needs_panels
def test_panels_take_rows_by_their_strides():
    layer = replaced(nn.Sequential(nn.Linear(64, 32)).bfloat16())
    wide = torch.randn(5, 128).bfloat16()
    assert torch.equal(run(layer, wide[:, ::2]), run(layer, wide[:, ::2].contiguous()))


@needs_panels
@pytest.mark.parametrize(
    "given",
    [torch.ones(1, 64), torch.ones(1, 64).half(), torch.ones(2, 32).bfloat16()],
    ids=["float32", "float16", "narrow"],
)
def test_what_panels_would_misread_is_refused(given):
    layer = replaced(nn.Sequential(nn.Linear(64, 32)).bfloat16())
    with pytest.raises(ValueError, match=r"for a weight of torch\.bfloat16 and width 64"):
        run(layer, given)


@pytest.mark.usefixtures("without_panels")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 192), (1, 7, 192), (33, 192), (1, 0, 192)])
def test_packed_layers_compute_what_plain_ones_do(dtype, bias, shape):
    model = Layers(bias=bias).to(dtype)
    given = torch.randn(shape).to(dtype)
    before = run(model, given)
    after = run(replaced(model), given)
    assert {type(model.left), type(model.right), type(model.turned)} == {PackedLinear}
    assert after.shape == before.shape
    assert after.dtype == dtype
    torch.testing.assert_close(after, before)


@pytest.mark.usefixtures("without_panels")
def test_a_single_row_is_computed_with_the_plain_copy_where_there_is_room(monkeypatch):
    monkeypatch.setattr("backplane_torch.engine.devices.cpu_linears._PLAIN_NUMBERS", 0)
    if not packs(torch.bfloat16):
        pytest.skip("no packed bfloat16 here")
    model = Layers().bfloat16()
    one, several = torch.randn(1, 1, 192).bfloat16(), torch.randn(1, 2, 192).bfloat16()
    before = [run(model, given) for given in (one, several)]
    left, right = (2 * layer.weight.numel() for layer in (model.left, model.right))
    replaced(model, room=4 * max(left, right))
    assert "plain" in model.left.extra_repr()
    assert "plain" not in model.right.extra_repr()
    for given, expected in zip((one, several), before, strict=True):
        torch.testing.assert_close(run(model, given), expected)
    assert torch.backends.mkldnn.enabled


def test_plain_weights_are_freed_one_after_the_other():
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8)))
    plain = [weakref.ref(layer.weight) for layer in model]
    left = []

    def report(_):
        gc.collect()
        left.append(sum(weight() is not None for weight in plain))

    replace_linears(model, None, lambda: ROOM, report)
    assert left == [7, 6, 5, 4, 3, 2, 1, 0]


def test_a_tied_head_is_packed_beside_the_embedding_only_where_there_is_room():
    tokens = torch.tensor([[5, 6, 7]])
    for room, kind in ((0, nn.Linear), (ROOM, PackedLinear)):
        model = llama(tie_word_embeddings=True)
        before = run(model, tokens).logits
        replaced(model, room=room)
        assert type(model.lm_head) is kind
        assert type(model.model.layers[0].self_attn.q_proj) is PackedLinear
        torch.testing.assert_close(run(model, tokens).logits, before)


def test_a_layer_that_hangs_in_two_places_stays_one():
    layer = nn.Linear(64, 64)
    model = nn.ModuleList([nn.Sequential(layer), nn.Sequential(layer)])
    replaced(model)
    assert model[0][0] is model[1][0]
    assert type(model[0][0]) is PackedLinear


def test_two_layers_of_one_weight_keep_it_plain_where_there_is_no_room():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[1].weight = model[0].weight
    replaced(model, room=0)
    assert [type(layer) for layer in model] == [nn.Linear, nn.Linear]


def test_what_computes_something_else_than_a_linear_layer_stays():
    class Doubled(nn.Linear):
        def forward(self, given):
            return 2 * super().forward(given)

    model = nn.ModuleDict({"own": Doubled(64, 64), "dt_proj": nn.Linear(64, 64)})
    replaced(model)
    assert type(model["own"]) is Doubled
    assert type(model["dt_proj"]) is nn.Linear


def test_a_type_that_is_not_packed_stays():
    model = replaced(nn.Sequential(nn.Linear(64, 64, dtype=torch.float64)))
    assert type(model[0]) is nn.Linear


# ── 8 bits ───────────────────────────────────────────────────────────────────────────────


@needs_int8
@pytest.mark.parametrize("rows", [TorchRows, fastest_rows])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 192), (1, 7, 192), (33, 192)])
def test_8_bits_are_near_and_no_row_depends_on_its_neighbours(monkeypatch, rows, dtype, shape):
    monkeypatch.setattr("backplane_torch.engine.devices.cpu_linears.fastest_rows", rows)
    model = Layers().to(dtype)
    given = torch.randn(shape).to(dtype)
    before = run(model, given).float()
    after = run(replaced(model, quantize="int8"), given)
    assert {type(model.left), type(model.right), type(model.turned)} == {Int8Linear}
    assert after.dtype == dtype
    assert (after.float() - before).norm() < 0.03 * before.norm()
    outlier = torch.cat([given.view(-1, 192), 1000 * torch.ones(1, 192, dtype=dtype)])
    torch.testing.assert_close(run(model, outlier)[:-1].view(after.shape), after)


@needs_int8
def test_8_bits_against_the_same_rounding_in_exact_numbers():
    weight, given = torch.randn(96, 192), torch.randn(5, 192)
    layer = Int8Linear(weight, None, QuantizedInput(TorchRows()))
    values, scales = TorchRows().quantize(given)
    steps = weight.abs().amax(1, keepdim=True) / 127
    rounded = (weight / steps).round().double() * steps
    expected = ((values.double() - 128) * scales) @ rounded.t()
    torch.testing.assert_close(run(layer, given).double(), expected, rtol=1e-5, atol=1e-4)


@needs_int8
def test_layers_that_share_an_input_quantize_it_once_and_a_new_one_again():
    shared = QuantizedInput(TorchRows())
    first, second = torch.randn(2, 64), torch.randn(2, 64)
    values, _ = shared.of(first)
    assert shared.of(first)[0] is values
    assert shared.of(second)[0].tolist() == TorchRows().quantize(second)[0].tolist()


@needs_int8
@pytest.mark.parametrize("tied", [True, False])
def test_heads_embeddings_and_routers_stay_as_they_are(tied):
    model = replaced(llama(tie_word_embeddings=tied).bfloat16(), quantize="int8", room=0)
    assert type(model.lm_head) is (nn.Linear if tied else PackedLinear)
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    for layer in model.model.layers:
        kinds = {type(part) for part in layer.modules() if not list(part.children())}
        assert nn.Linear not in kinds
        assert PackedLinear not in kinds
    router = replaced(nn.Sequential(nn.Linear(512, 8)), quantize="int8")
    assert type(router[0]) is PackedLinear


@needs_int8
def test_gpt2_in_8_bits_still_says_about_the_same():
    config = GPT2Config(n_embd=128, n_layer=2, n_head=4, vocab_size=300)
    model = GPT2LMHeadModel(config).eval()
    tokens = torch.arange(40).unsqueeze(0)
    before = run(model, tokens).logits.log_softmax(-1)
    after = run(replaced(model, quantize="int8"), tokens).logits.log_softmax(-1)
    assert type(model.transformer.h[0].attn.c_attn) is Int8Linear
    assert 0 < (after - before).abs().max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_8_bits_go_with_no_other_types(dtype):
    model = nn.Sequential(nn.Linear(8, 8)).to(dtype)
    with pytest.raises(BackendError, match=f"not {dtype}"):
        replace_linears(model, "int8", lambda: ROOM, lambda _: None)


@pytest.mark.parametrize(("able", "offered"), [(True, ("int8",)), (False, ())])
def test_int8_is_offered_where_the_processor_has_it(monkeypatch, able, offered):
    monkeypatch.setattr("backplane_torch.engine.devices.cpu.computes_int8", lambda: able)
    assert CpuDevice(threads=torch.get_num_threads()).quantizations == offered
