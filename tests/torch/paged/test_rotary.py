"""Frequencies that would follow the longest sequence of a batch stay as they are."""

import torch
from backplane_torch.engine.paged.rotary import fix_frequencies
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 256}


def turned(rotary: torch.nn.Module, last: int) -> torch.Tensor:
    """The cosines of the first positions in a batch that reaches `last`."""
    positions = torch.tensor([[0, 1, 2, 3, last]])
    return rotary(torch.zeros(1, 1, 16), positions)[0][:, :4].clone()


def longrope() -> Phi3RotaryEmbedding:
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 64, **factors}
    return Phi3RotaryEmbedding(
        Phi3Config(
            **SIZES,
            original_max_position_embeddings=64,
            rope_parameters={"rope_theta": 10000.0, **rope},
            pad_token_id=0,
        )
    )


def dynamic() -> LlamaRotaryEmbedding:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    return LlamaRotaryEmbedding(LlamaConfig(**SIZES, rope_parameters=rope))


def test_without_it_a_long_neighbour_turns_short_sequences_otherwise() -> None:
    for rotary, longer in ((longrope(), 100), (dynamic(), 400)):
        assert not torch.equal(turned(rotary, 10), turned(rotary, longer))


def test_with_it_a_neighbour_changes_nothing() -> None:
    for rotary, longer in ((longrope(), 100), (dynamic(), 400)):
        expected = turned(rotary, longer)
        assert fix_frequencies(rotary, longer + 1)
        assert torch.equal(turned(rotary, 10), expected)
        assert torch.equal(turned(rotary, longer), expected)


def test_where_no_sequence_is_that_long_the_short_ones_stay() -> None:
    rotary = longrope()
    expected = turned(rotary, 10)
    assert fix_frequencies(rotary, 64)
    assert torch.equal(turned(rotary, 63), expected)


def test_plain_positions_are_left_alone() -> None:
    rotary = LlamaRotaryEmbedding(LlamaConfig(**SIZES))
    assert not fix_frequencies(rotary, 1000)
    assert rotary.rope_type == "default"
