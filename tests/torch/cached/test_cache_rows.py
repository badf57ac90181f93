"""Rows of caches find together, part, shrink and go, and each stays who it is."""

import hypothesis
import pytest
import torch
from backplane_torch.engine.cached.cache_rows import CacheRows
from backplane_torch.engine.cached.layers import (
    EncodedPrompts,
    Row,
    bytes_per_sequence,
    bytes_per_token,
    gather,
    has_states,
    remember,
    unknown_tensors,
)
from hypothesis import strategies as st
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

NUM_LAYERS = 2


def numbers(seq_ids, positions, layer=0):
    """Keys or values, [sequences, heads, tokens, width], that tell whose they are."""
    values = torch.tensor([[1000.0 * one + at for at in positions] for one in seq_ids])
    return (values + 0.25 * layer)[:, None, :, None].expand(-1, 2, -1, 3).contiguous()


def filled(kind, seq_ids, num_tokens, **options):
    layer = kind(**options)
    if isinstance(layer, DynamicLayer):
        layer.update(numbers(seq_ids, range(num_tokens)), -numbers(seq_ids, range(num_tokens)))
    if isinstance(layer, LinearAttentionLayer):
        state = numbers(seq_ids, range(4))[:, :, :, 0]
        layer.update_conv_state(state)
        layer.update_recurrent_state(state + 0.5)
    return layer


class Rows:
    """`CacheRows` beside the lengths that its sequences should have."""

    def __init__(self):
        self.rows = CacheRows()
        self.lengths: dict[int, int] = {}

    def start(self, num_sequences, num_tokens):
        seq_ids = [one for one in range(8) if one not in self.lengths][:num_sequences]
        if seq_ids:
            layers = [DynamicLayer() for _ in range(NUM_LAYERS)]
            self._extend(layers, seq_ids, range(num_tokens))
            self.rows.put(seq_ids, layers)
            self.lengths.update(dict.fromkeys(seq_ids, num_tokens))

    def go_on(self, chosen):
        """One more token for some that are equally long."""
        self.rows.settle()
        by_length = {}
        for seq_id in chosen:
            if seq_id in self.lengths:
                by_length.setdefault(self.lengths[seq_id], []).append(seq_id)
        for length, seq_ids in by_length.items():
            self._extend(self.rows.take(seq_ids), seq_ids, [length])
            self.lengths.update(dict.fromkeys(seq_ids, length + 1))

    def trim(self, seq_id, by):
        if self.lengths.get(seq_id, 0) > by:
            self.lengths[seq_id] -= by
            self.rows.trim(seq_id, self.lengths[seq_id])

    def release(self, seq_id):
        self.lengths.pop(seq_id, None)
        self.rows.release(seq_id)

    def check(self):
        """Who is there holds its own numbers; and after settling nothing else is held."""
        self.rows.settle()
        for place, batches in enumerate(self.rows._layers):
            assert sorted(batches) == sorted(self.lengths)
            layers = {id(batch.layer): batch.layer for batch in batches.values()}
            held = sum(layer.keys.untyped_storage().nbytes() for layer in layers.values())
            assert held == sum(self.lengths.values()) * 2 * 3 * 4
            for seq_id, length in self.lengths.items():
                layer, at = batches[seq_id].row(seq_id)
                expected = numbers([seq_id], range(length), place)[0]
                assert torch.equal(layer.keys[at], expected)
                assert torch.equal(layer.values[at], -expected)

    def _extend(self, layers, seq_ids, positions):
        for place, layer in enumerate(layers):
            layer.update(numbers(seq_ids, positions, place), -numbers(seq_ids, positions, place))


SEQ_ID = st.integers(0, 7)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(1, 4), st.integers(1, 5)),
        st.tuples(st.just("go_on"), st.permutations(range(8))),
        st.tuples(st.just("go_on"), st.lists(SEQ_ID, unique=True)),
        st.tuples(st.just("trim"), SEQ_ID, st.integers(1, 3)),
        st.tuples(st.just("release"), SEQ_ID),
    ),
    max_size=25,
)


@hypothesis.given(STEPS)
@hypothesis.settings(deadline=None)
def test_each_row_stays_who_it_is(steps):
    rows = Rows()
    for name, *arguments in steps:
        getattr(rows, name)(*arguments)
    rows.check()


def test_in_steady_decode_nothing_is_copied():
    rows = Rows()
    rows.start(3, 4)
    first = rows.rows.take([0, 1, 2])
    assert all(one is two for one, two in zip(first, rows.rows.take([0, 1, 2]), strict=True))
    rows.rows.settle()
    assert rows.rows.take([0, 1, 2])[0] is first[0]


def test_a_lone_sequence_is_gone_at_once_and_one_among_others_with_the_next_step():
    rows = Rows()
    rows.start(2, 4)
    rows.start(1, 6)
    rows.release(2)
    assert 2 not in rows.rows._layers[0]
    rows.release(0)
    assert rows.rows._layers[0][1].layer.keys.shape[0] == 2
    rows.check()
    assert rows.rows._layers[0][1].layer.keys.shape[0] == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DynamicLayer, {}),
        (DynamicSlidingWindowLayer, {"sliding_window": 4}),
        (LinearAttentionLayer, {}),
        (LinearAttentionAndFullAttentionLayer, {}),
    ],
)
@pytest.mark.parametrize("num_tokens", [2, 6])
def test_layers_are_joined_and_put_back(kind, options, num_tokens):
    parts = [filled(kind, [1, 2], num_tokens, **options), filled(kind, [3], num_tokens, **options)]
    joined = gather([Row(parts[1], 0), Row(parts[0], 1)])
    expected = filled(kind, [3, 2], num_tokens, **options)
    assert not unknown_tensors(joined)
    assert has_states(joined) == isinstance(joined, LinearAttentionLayer)
    assert_same(joined, expected)
    put_back = remember(joined)
    if isinstance(joined, DynamicLayer):
        joined.update(numbers([3, 2], [9, 9]), numbers([3, 2], [9, 9]))
        assert joined.get_seq_length() == num_tokens + 2
    if isinstance(joined, LinearAttentionLayer):
        joined.update_conv_state(torch.ones(2, 2, 1))
        joined.recurrent_states[0].zero_()
    put_back()
    assert_same(joined, expected)
    # And the copies were copies.
    assert_same(parts[0], filled(kind, [1, 2], num_tokens, **options))


def test_what_breaks_off_between_keys_and_values_is_put_back():
    layer = filled(DynamicLayer, [1, 2], 5)
    put_back = remember(layer)
    layer.keys = torch.cat([layer.keys, numbers([1, 2], [5, 6])], dim=-2)
    put_back()
    assert_same(layer, filled(DynamicLayer, [1, 2], 5))


def test_bytes_are_those_of_one_sequence():
    growing, states = filled(DynamicLayer, [1, 2], 5), filled(LinearAttentionLayer, [1, 2], 5)
    encoded = EncodedPrompts(torch.zeros(2, 7, 11))
    assert bytes_per_token([growing, states, encoded]) == 2 * 2 * 3 * 4 + 11 * 4
    assert bytes_per_sequence([growing, states, encoded]) == 2 * 2 * 4 * 4


def assert_same(layer, expected):
    found, wanted = vars(layer), vars(expected)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, dict):
            pairs = [(found[name][key], value[key]) for key in value]
        else:
            pairs = [(found[name], value)]
        for one, other in pairs:
            assert torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other
