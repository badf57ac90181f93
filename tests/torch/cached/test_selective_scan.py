"""The scan is its own definition, token by token, wherever its passes are cut."""

import hypothesis
import pytest
import torch
from backplane_torch.engine.cached.selective_scan import selective_scan
from hypothesis import strategies as st


def by_definition(*, inputs, steps, decay, write, read):
    outputs, state = [], torch.zeros_like(decay)
    for at in range(inputs.shape[2]):
        step = steps[:, :, at, None]
        state = torch.exp(decay * step) * state
        state = state + step * inputs[:, :, at, None] * write[:, None, :, at]
        outputs.append((state * read[:, None, :, at]).sum(2))
    return torch.stack(outputs, 2), state


@hypothesis.given(
    num_tokens=st.integers(1, 100), num_first=st.integers(0, 99), num_sequences=st.integers(1, 3)
)
@hypothesis.settings(deadline=None, max_examples=30)
def test_it_goes_on_from_any_state(num_tokens, num_first, num_sequences):
    generator = torch.Generator().manual_seed(num_tokens)

    def numbers(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float32)

    inputs, steps = numbers(num_sequences, 4, num_tokens), numbers(num_sequences, 4, num_tokens)
    write, read = numbers(num_sequences, 3, num_tokens), numbers(num_sequences, 3, num_tokens)
    decay, steps = -numbers(4, 3).abs(), steps.abs()
    tokens = {"inputs": inputs, "steps": steps, "write": write, "read": read}
    expected, last = by_definition(**tokens, decay=decay)
    state, outputs = None, []
    for part in (slice(0, num_first), slice(num_first, num_tokens)):
        if inputs[:, :, part].shape[2]:
            here = {name: tensor[:, :, part] for name, tensor in tokens.items()}
            output, state = selective_scan(**here, decay=decay, state=state)
            outputs.append(output)
    assert torch.allclose(torch.cat(outputs, 2), expected, atol=1e-4)
    assert torch.allclose(state, last, atol=1e-4)


def test_the_state_before_is_not_written_to():
    state = torch.ones(1, 2, 3)
    tokens, states = torch.ones(1, 2, 5), torch.ones(1, 3, 5)
    _, last = selective_scan(
        inputs=tokens,
        steps=tokens,
        decay=torch.zeros(2, 3),
        write=states,
        read=states,
        state=state,
    )
    assert torch.equal(state, torch.ones(1, 2, 3))
    assert last.flatten().tolist() == pytest.approx([6.0] * 6)
