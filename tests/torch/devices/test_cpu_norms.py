"""RMS norms in compiled rows, against what modules of transformers and torch compute themselves."""

import pytest
import torch
from backplane_torch.engine.devices.cpu import CpuDevice
from backplane_torch.engine.devices.cpu_norms import NormForward, replace_norms
from backplane_torch.engine.devices.native import library
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nRMSNorm
from transformers.models.llama4.modeling_llama4 import Llama4TextRMSNorm
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated
from transformers.models.t5.modeling_t5 import T5LayerNorm

from tests.torch.cached.tiny_models import CONFIGS, VOCABULARY, tiny_model

needs_kernels = pytest.mark.skipif(library.load() is None, reason="nothing is compiled")
KINDS = [
    *(Qwen3RMSNorm, T5LayerNorm, Llama4TextRMSNorm, Olmo2RMSNorm),
    *(Gemma3RMSNorm, Gemma3nRMSNorm, nn.RMSNorm),
]
BOTH = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(7)


def made(kind, width, dtype, *, replaced=True):
    norm = kind(width, eps=1e-5)
    draws = torch.Generator().manual_seed(width)
    norm.weight.data = torch.randn(width, generator=draws).to(dtype)
    if replaced:
        replace_norms(norm)
    return norm


def run(norm, rows):
    with torch.inference_mode():
        return norm(rows)


def is_compiled(module):
    return isinstance(module.forward, NormForward)


class ShiftedNorm(nn.Module):
    """An RMS norm but for what is added to it."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, given):
        return nn.functional.rms_norm(given, self.weight.shape, self.weight, self.eps) + 2**-6


class PickyNorm(ShiftedNorm):
    """One that takes nothing that was foreseen."""

    def forward(self, given):
        raise LookupError(given.shape)


class HeldNorm(nn.Module):
    """One that begins with another."""

    def __init__(self, width, eps):
        super().__init__()
        self.held, self.weight, self.eps = nn.Identity(), nn.Parameter(torch.ones(width)), eps

    forward = Olmo2RMSNorm.forward


# ── what is compiled ─────────────────────────────────────────────────────────────────────


@st.composite
def layouts(draw):
    """Rows in memory of all orders, of steps whose squares sum up exactly or of any numbers."""
    width = draw(st.sampled_from([1, 2, 7, 16, 64, 100, 300]))
    # 600 wide ones are shared out among threads.
    shape = (*draw(st.sampled_from([(), (1,), (1, 3)])), draw(st.sampled_from([0, 1, 5, 600])))
    layout = draw(st.sampled_from(["plain", "turned", "middle", "every other", "repeated"]))
    draws = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    exact = draw(st.booleans())
    size = (*shape, 2 * width + 8)
    if exact:
        numbers = torch.randint(-31, 32, size, generator=draws).float()
    else:
        numbers = torch.randn(size, generator=draws)
    numbers *= 2.0 ** draw(st.integers(-40, 40))
    numbers = numbers.to(draw(st.sampled_from(BOTH)))
    plain = numbers[..., :width].contiguous()
    rows = {
        "plain": plain,
        "turned": plain.transpose(0, -2),
        "middle": numbers[..., 8 : 8 + width],
        "every other": numbers[..., : 2 * width : 2],
        "repeated": plain[..., :1, :].expand(plain.shape),
    }[layout]
    return rows, exact


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(layouts(), st.booleans())
def test_every_kind_computes_what_its_module_does(kind, rows_and_exact, mixed):
    rows, exact = rows_and_exact
    dtype = torch.float32 if mixed else rows.dtype
    norm, own = (made(kind, rows.shape[-1], dtype, replaced=replaced) for replaced in (True, False))
    assert is_compiled(norm)
    given, wanted = run(norm, rows), run(own, rows)
    assert given.dtype == wanted.dtype
    if exact:
        assert torch.equal(given, wanted)
    else:  # squares are summed up in another order, and a number in thousands is rounded otherwise
        step = 1e-6 if given.dtype == torch.float32 else 2**-6
        torch.testing.assert_close(given, wanted, rtol=step, atol=0)
        if given.dtype == torch.bfloat16:
            differs = given != wanted
            if not rows.stride(-2):  # one row again and again, whose roundings would count as often
                assert torch.equal(differs, differs[..., :1, :].expand(differs.shape))
                differs = differs[..., :1, :]
            assert differs.sum() <= 2 + differs.numel() // 1000


@needs_kernels
@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_none_befall_their_own_row_alone(kind, dtype):
    norm, own = (made(kind, 40, dtype, replaced=replaced) for replaced in (True, False))
    rows = torch.randn(4, 40).to(dtype)
    rows[1, 7], rows[2, 7], rows[3, 7] = torch.nan, torch.inf, torch.finfo(dtype).max
    torch.testing.assert_close(run(norm, rows), run(own, rows), equal_nan=True)


@needs_kernels
def test_a_row_is_the_same_whatever_stands_beside_it():
    norm, rows = made(Qwen3RMSNorm, 300, torch.bfloat16), torch.randn(700, 300).bfloat16()
    together = run(norm, rows)
    assert all(torch.equal(run(norm, rows[row]), together[row]) for row in range(700))


@needs_kernels
def test_heads_that_were_turned_stay_so_in_memory():
    norm, own = (made(Qwen3RMSNorm, 64, torch.float32, replaced=one) for one in (True, False))
    heads = torch.randn(1, 9, 4, 64).transpose(1, 2)
    assert run(norm, heads).stride() == run(own, heads).stride() == heads.stride()


@needs_kernels
@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_computes_what_it_did(name):
    token_ids = torch.arange(9).unsqueeze(0) * 7 % VOCABULARY
    model = tiny_model(name)
    also = {"decoder_input_ids": token_ids} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        before = model(input_ids=token_ids, **also).logits
        replace_norms(model)
        after = model(input_ids=token_ids, **also).logits
    if any(type(module).__name__.endswith("RMSNorm") for module in model.modules()):
        assert any(map(is_compiled, model.modules()))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


# ── where it hangs ───────────────────────────────────────────────────────────────────────


@needs_kernels
def test_the_device_prepares_them_and_all_else_of_them_stays():
    norm = made(Qwen3RMSNorm, 64, torch.float32, replaced=False)
    model = nn.ModuleList([nn.Sequential(norm), nn.Sequential(norm)])
    before = model.state_dict()
    CpuDevice(threads=torch.get_num_threads()).prepare_layers(model, None, lambda _: None)
    assert model[0][0] is model[1][0] is norm
    assert is_compiled(norm)
    assert norm.variance_epsilon == 1e-5
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_without_the_library_nothing_changes(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: None)
    norm = made(Qwen3RMSNorm, 64, torch.float32)
    assert not is_compiled(norm)
    assert "forward" not in vars(norm)


# ── what stays ───────────────────────────────────────────────────────────────────────────


@needs_kernels
@pytest.mark.parametrize(
    "norm",
    [
        CohereLayerNorm(64, eps=1e-5),
        MambaRMSNormGated(64, group_size=64, eps=1e-5),
        Qwen3NextRMSNormGated(64, eps=1e-5),
        OlmoLayerNorm(64),
        nn.LayerNorm(64),
        nn.LayerNorm(64, bias=False),
        nn.GroupNorm(4, 64),
        nn.RMSNorm(64, eps=1e-5, elementwise_affine=False),
        nn.RMSNorm((4, 16), eps=1e-5),
        Gemma3nRMSNorm(64, with_scale=False),
        ShiftedNorm(64, 1e-5),
        PickyNorm(64, 1e-5),
        HeldNorm(64, 1e-5),
    ],
    ids=repr,
)
def test_what_is_no_rms_norm_of_one_tensor_stays(norm):
    replace_norms(norm)
    assert not is_compiled(norm)


@needs_kernels
def test_other_tensors_than_those_of_the_proof_get_the_modules_own_forward():
    norm = made(Qwen3RMSNorm, 64, torch.float32)
    # A weight in float32 makes float32 of bfloat16.
    assert run(norm, torch.ones(2, 64).bfloat16()).dtype == torch.float32
    assert run(norm, torch.ones(2, 64).double()).dtype == torch.float64
    # As it broadcasts, so it did.
    assert run(norm, torch.ones(2, 1)).shape == (2, 64)
    with pytest.raises(RuntimeError, match="must match"):
        run(norm, torch.ones(2, 63))
