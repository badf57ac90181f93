"""`DecoderNetwork`: models that continue their input, with keys and values, states, or both."""

import inspect

import torch
from backplane_core.batching.executor import ScheduledSequence
from backplane_core.batching.logit_rows import logit_offsets
from backplane_core.errors import ModelError
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicSlidingWindowLayer

from backplane_torch.engine.cached.growing_layer import with_room
from backplane_torch.engine.cached.layers import (
    Layer,
    Row,
    bytes_per_sequence,
    bytes_per_token,
    cache_of,
    gather,
    has_states,
    recurrent_states,
    tensors_of,
)
from backplane_torch.engine.cached.network import (
    Network,
    Share,
    check_layers,
    rows_of,
)
from backplane_torch.engine.cached.selective_scan import continue_scans
from backplane_torch.engine.checkpoint.config import max_positions
from backplane_torch.state_plan import StateShape

_NUM_PROBED = 2
_CACHE_ARGUMENTS = ("past_key_values", "cache_params")


class DecoderNetwork(Network):
    """Falcon, BLOOM, MPT, GPT-J, GPT-Neo, CodeGen, XGLM; Mamba and its kin; hybrids of both."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._cache_argument = _cache_argument(model)
        self._scans = continue_scans(model)
        layers = self._probe()
        check_layers(model, layers)
        self.shape = StateShape(
            bytes_per_token=bytes_per_token(layers),
            bytes_per_sequence=bytes_per_sequence(layers),
            num_vocabulary=model.config.vocab_size,
            max_positions=max_positions(model.config),
        )
        self.trimmable = not any(
            has_states(layer) or isinstance(layer, DynamicSlidingWindowLayer) for layer in layers
        )
        # Where only states are kept, it does not matter how long it took to come to them.
        self._goes_by_length = self.shape.bytes_per_token > 0
        self._continues = self._continues_from(layers)

    def close(self) -> None:
        """Leave the model as it was, and let go of it."""
        for handle in self._scans:
            handle.remove()
        super().close()

    def share_of(self, scheduled: ScheduledSequence) -> Share:
        """All its tokens."""
        start, token_ids = scheduled.start, scheduled.token_ids
        length = start if self._goes_by_length else min(start, 1)
        return Share(
            seq_id=scheduled.seq_id,
            key=(length, len(token_ids)),
            token_ids=token_ids,
            prompt_ids=[],
            is_first=start == 0,
            positions=logit_offsets(scheduled),
        )

    def compute(
        self, shares: list[Share], layers: list[Layer] | None
    ) -> tuple[torch.Tensor, list[Layer]]:
        """Compute at once or, where the model cannot go on with several tokens, one by one."""
        token_ids = torch.tensor([share.token_ids for share in shares], device=self._model.device)
        rows = rows_of(shares)
        if layers is None:
            cache = self._create_cache()
            return self._run(token_ids, cache, rows), cache.layers
        cache = cache_of(layers)
        if self._continues or token_ids.shape[1] == 1:
            return self._run(token_ids, cache, rows), layers
        return self._run_one_by_one(token_ids, cache, rows), layers

    def _create_cache(self) -> Cache:
        return cache_of(with_room(DynamicCache(config=self._model.config).layers))

    def _run(
        self, token_ids: torch.Tensor, cache: Cache, rows: list[tuple[int, int]]
    ) -> torch.Tensor:
        return self._call(rows, input_ids=token_ids, **{self._cache_argument: cache})

    def _run_one_by_one(
        self, token_ids: torch.Tensor, cache: Cache, rows: list[tuple[int, int]]
    ) -> torch.Tensor:
        computed: list[torch.Tensor] = []
        order: list[tuple[int, int]] = []
        for position, column in enumerate(token_ids.split(1, dim=1)):
            here = [row for row in rows if row[1] == position]
            computed.append(self._run(column, cache, [(place, 0) for place, _ in here]))
            order += here
        return torch.cat(computed)[[order.index(row) for row in rows]]

    @torch.no_grad()
    def _probe(self) -> list[Layer]:
        """The cache of two tokens.

        Raises:
            ModelError: the model does not work with transformers' own cache.
        """
        cache = self._create_cache()
        try:
            self._run(self._two_tokens(), cache, [])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{type(self._model).__name__} does not run on transformers' DynamicCache: {error}",
                remedy="choose another model",
            ) from error
        for layer in cache.layers:
            for place, tensor in tensors_of(layer).items():
                if place.number is None and (num_tokens := tensor.shape[-2]) != _NUM_PROBED:
                    raise ModelError(
                        f"{type(self._model).__name__} keeps {num_tokens} tokens where it was "
                        f"given {_NUM_PROBED}",
                        remedy="choose another model",
                    )
        return cache.layers

    def _two_tokens(self) -> torch.Tensor:
        return torch.arange(_NUM_PROBED, device=self._model.device).unsqueeze(0)

    @torch.no_grad()
    def _continues_from(self, layers: list[Layer]) -> bool:
        """Whether several tokens at once go on from the states there are.

        A scan that begins each pass of several tokens with zeros, as transformers' own of Mamba
        does, ends in the same state whatever there was before.
        """
        stateful = (place for place, layer in enumerate(layers) if recurrent_states(layer))
        first = next(stateful, None)
        if first is None:
            return True
        ends: list[list[torch.Tensor]] = []
        for factor in (0.0, 1.0):
            copies = [gather([Row(layer, 0)]) for layer in layers]
            for state in recurrent_states(copies[first]):
                state.mul_(factor)
            self._run(self._two_tokens(), cache_of(copies), [])
            ends.append(recurrent_states(copies[first]))
        return not all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def _cache_argument(model: PreTrainedModel) -> str:
    """The name under which a model takes its cache.

    Raises:
        ModelError: it takes none.
    """
    parameters = inspect.signature(model.forward).parameters
    for name in _CACHE_ARGUMENTS:
        if name in parameters:
            return name
    raise ModelError(
        f"{type(model).__name__} takes no cache, and would compute a text anew for each token",
        remedy="choose another model",
    )
