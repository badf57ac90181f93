"""A layer with room is to all who read it transformers' own layer."""

import hypothesis
import torch
from backplane_torch.engine.cached.growing_layer import ROOM, GrowingLayer, with_room
from backplane_torch.engine.cached.layers import Row, gather, remember
from hypothesis import strategies as st
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 6)),
        st.tuples(st.just("put back"), st.integers(1, 6)),
        st.tuples(st.just("gather"), st.lists(st.integers(0, 1), min_size=1, max_size=3)),
        st.tuples(st.just("crop"), st.integers(1, 4)),
    ),
    max_size=30,
)


@hypothesis.given(STEPS)
@hypothesis.settings(deadline=None)
def test_it_holds_what_transformers_own_holds(steps):
    layers = [GrowingLayer(), DynamicLayer()]
    for layer in layers:
        layer.update(*tokens(2, 3, seed=99))
    for seed, (name, argument) in enumerate(steps):
        held = layers[1].keys.shape
        if name == "add":
            for layer in layers:
                layer.update(*tokens(held[0], argument, seed))
        elif name == "put back":
            put_back = remember(layers[0])
            layers[0].update(*tokens(held[0], argument, seed))
            put_back()
        elif name == "gather":
            rows = [row % held[0] for row in argument]
            layers = [gather([Row(layer, row) for row in rows]) for layer in layers]
        elif held[2] > argument:
            for layer in layers:
                layer.crop(-argument)
        assert torch.equal(layers[0].keys, layers[1].keys)
        assert torch.equal(layers[0].values, layers[1].values)
        assert layers[0].get_seq_length() == layers[1].get_seq_length()
        assert layers[0].get_mask_sizes(1) == layers[1].get_mask_sizes(1)


def test_most_tokens_are_added_in_place_and_the_room_is_bounded():
    layer = GrowingLayer()
    layer.update(*tokens(2, 64, seed=0))
    places = set()
    for seed in range(40):
        layer.update(*tokens(2, 1, seed))
        places.add(layer.keys.data_ptr())
        most = layer.keys.nbytes * (1 + ROOM) + 2 * 2 * 3 * 4
        assert layer.keys.untyped_storage().nbytes() <= most
    assert len(places) <= 6


def test_two_that_began_as_one_do_not_write_to_each_other():
    first = GrowingLayer()
    first.update(*tokens(1, 9, seed=0))
    second = gather([Row(first, 0)])
    first.update(*tokens(1, 1, seed=1))
    second.update(*tokens(1, 1, seed=2))
    assert torch.equal(first.keys[:, :, :9], second.keys[:, :, :9])
    assert not torch.equal(first.keys[:, :, 9], second.keys[:, :, 9])


def test_what_belongs_to_others_is_not_written_to():
    projected = torch.ones(1, 2, 12, 3)
    layer = GrowingLayer()
    layer.update(projected[:, :, :4], projected[:, :, 4:8])
    layer.update(*tokens(1, 1, seed=1))
    layer.keys = projected[:, :, 2:6]
    layer.values = projected[:, :, 2:6]
    layer.update(*tokens(1, 1, seed=2))
    assert projected.eq(1).all()


def test_only_layers_that_grow_get_room():
    kinds = [DynamicLayer(), DynamicSlidingWindowLayer(sliding_window=4), LinearAttentionLayer()]
    assert [type(layer) for layer in with_room(kinds)] == [
        GrowingLayer,
        DynamicSlidingWindowLayer,
        LinearAttentionLayer,
    ]


def tokens(num_sequences, num_tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_sequences, 2, num_tokens, 3)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
