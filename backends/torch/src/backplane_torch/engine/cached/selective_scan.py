"""Mamba's selective scan, going on from the state there is.

Transformers' own begins each pass of several tokens with zeros, so that a prompt could not come in
chunks, and takes several operations for each token where one must be.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu, softplus
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

# The mixers that call a function of this name in their module.
_MIXERS = ("MambaMixer", "FalconMambaMixer", "JambaMambaMixer")
_FUNCTION = "mamba_selective_scan"
# Tokens whose decays and inputs are there at once, in float32 and for each number of the state.
_BLOCK = 32


def continue_scans(model: PreTrainedModel) -> list[RemovableHandle]:
    """Let the mixers of a model scan from their states.

    The mixers neither take a scan nor hand the state to theirs. So the function in their module is
    replaced by one that does as before, except while a mixer with our hooks is computed.

    Returns:
        What takes it back; none where a model has no such mixers.
    """
    handles: list[RemovableHandle] = []
    for mixer in model.modules():
        if type(mixer).__name__ in _MIXERS:
            module = sys.modules[type(mixer).__module__]
            scan = getattr(module, _FUNCTION)
            if not isinstance(scan, _ContinuedScan):
                scan = _ContinuedScan(scan)
                setattr(module, _FUNCTION, scan)
            handles.append(mixer.register_forward_pre_hook(scan.enter, with_kwargs=True))
            handles.append(mixer.register_forward_hook(scan.leave, always_call=True))
    return handles


class _ContinuedScan:
    """In place of a module's scan. Between `enter` and `leave` it knows the mixer's state."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self._original = original
        self._is_ours = False
        self._state: torch.Tensor | None = None

    def enter(self, mixer: nn.Module, _arguments: Any, named: dict[str, Any]) -> None:
        """A mixer is about to be computed."""
        layer = named["cache_params"].layers[mixer.layer_idx]
        self._is_ours = True
        self._state = layer.recurrent_states[0] if layer.has_previous_state[0] else None

    def leave(self, *_: Any) -> None:
        """It is computed, or has failed."""
        self._is_ours = False
        self._state = None

    def __call__(
        self,
        hidden_states: torch.Tensor,
        dt: torch.Tensor,
        A: torch.Tensor,  # noqa: N803 -- the mixers name it so
        B: torch.Tensor,  # noqa: N803 -- as above
        C: torch.Tensor,  # noqa: N803 -- as above
        *,
        D: torch.Tensor,  # noqa: N803 -- as above
        z: torch.Tensor,
        delta_bias: torch.Tensor | None = None,
        **options: Any,
    ) -> Any:
        if not self._is_ours:
            options |= {"D": D, "z": z, "delta_bias": delta_bias}
            return self._original(hidden_states, dt, A, B, C, **options)
        if delta_bias is not None:
            dt = dt + delta_bias[:, None]
        output, state = selective_scan(
            inputs=hidden_states,
            steps=softplus(dt.float()),
            decay=A,
            write=B,
            read=C,
            state=self._state,
        )
        return (output + hidden_states * D[:, None]) * silu(z), state


def selective_scan(
    *,
    inputs: torch.Tensor,
    steps: torch.Tensor,
    decay: torch.Tensor,
    write: torch.Tensor,
    read: torch.Tensor,
    state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each token t: state = exp(decay · steps[t]) · state + steps[t] · inputs[t] · write[t].

    Args:
        inputs: [sequences, width, tokens].
        steps: like `inputs`, in float32.
        decay: [width, states], in float32.
        write: [sequences, states, tokens].
        read: like `write`.
        state: [sequences, width, states] before the first token; None is zeros.

    Returns:
        The product of each token's state with its `read`, [sequences, width, tokens], and the last
        state; both in float32.
    """
    num_tokens = inputs.shape[2]
    state = torch.zeros_like(steps[:, :, :1]) if state is None else state.float()
    inputs, steps, write, read = (
        part.permute(2, 0, 1).float() for part in (inputs, steps, write, read)
    )
    outputs: list[torch.Tensor] = []
    for begin in range(0, num_tokens, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        decays = torch.exp(steps[block, :, :, None] * decay)
        states = (steps[block] * inputs[block])[..., None] * write[block, :, None]
        # The one thing that goes token by token: what each adds becomes the state after it.
        for added, factor in zip(states.unbind(), decays.unbind(), strict=True):
            state = added.addcmul_(factor, state)
        outputs.append((states @ read[block, :, :, None]).squeeze(3))
    return torch.cat(outputs).permute(1, 2, 0), state.clone()
