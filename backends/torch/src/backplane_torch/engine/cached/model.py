"""`CachedModel`: a `BatchModel` whose sequences live in transformers' own caches.

A step takes a forward pass for each group of sequences that are equally long.
"""

import logging
from collections.abc import Callable

import torch
from backplane_core.backend import EngineSettings
from backplane_core.batching.executor import ExecutorTraits, MemoryLayout, ScheduledBatch
from backplane_core.errors import GenerationError, OutOfMemoryError
from transformers import PreTrainedModel

from backplane_torch.engine.batch_model import BatchModel
from backplane_torch.engine.cached.cache_rows import CacheRows
from backplane_torch.engine.cached.decoder import DecoderNetwork
from backplane_torch.engine.cached.encoder_decoder import EncoderDecoderNetwork
from backplane_torch.engine.cached.layers import remember
from backplane_torch.engine.cached.network import Network, Share
from backplane_torch.engine.devices.device import TorchDevice
from backplane_torch.state_plan import StatePlan, make_state_plan

_log = logging.getLogger(__name__)


class CachedModel(BatchModel):
    """Runs a network over the caches of its sequences. `plan` says how many there may be."""

    def __init__(self, network: Network, device: TorchDevice, plan: StatePlan) -> None:
        self.plan = plan
        self._network = network
        self._device = device
        self._rows = CacheRows()
        self._num_computed: dict[int, int] = {}  # tokens, by sequence id
        self._traits = ExecutorTraits(
            # Of which nothing can be shared, so each sequence draws on one pool by its length.
            layout=MemoryLayout.CELLS,
            shareable=False,
            trimmable=network.trimmable,
            reusable=network.shape.reusable,
            max_sequences=plan.num_sequences,
            cache_tokens=plan.cache_tokens,
            slot_tokens=plan.max_total_tokens,
            max_batch_tokens=plan.batch_tokens,
            max_scored_tokens=plan.scored_tokens,
        )

    @property
    def traits(self) -> ExecutorTraits:
        """Constant."""
        return self._traits

    def forward(self, batch: ScheduledBatch) -> torch.Tensor:
        """Compute group after group; see `BatchModel`."""
        shares = self._shares(batch)
        undo: list[Callable[[], None]] = []
        try:
            logits = self._compute(shares, undo)
        except Exception as error:
            if not self._device.is_out_of_memory(error):
                raise
            _log.info("out of memory in a step of %d tokens: %s", batch.num_tokens, error)
        else:
            for scheduled in batch.sequences:
                end = scheduled.start + len(scheduled.token_ids)
                self._num_computed[scheduled.seq_id] = end
            return logits
        # Here the error is gone, and with its traceback what the forward pass had got to.
        for put_back in undo:
            put_back()
        raise OutOfMemoryError(
            f"there is no memory to compute {batch.num_tokens} tokens of "
            f"{len(batch.sequences)} sequences at once",
            remedy="lower --max-batch-prefill-tokens, --max-batch-size or --cuda-memory-fraction",
        )

    def _shares(self, batch: ScheduledBatch) -> list[Share]:
        for scheduled in batch.sequences:
            held = self._num_computed.get(scheduled.seq_id, 0)
            if held != scheduled.start:
                raise GenerationError(
                    f"of a sequence that goes on at token {scheduled.start} the cache holds {held}"
                )
        shares = [self._network.share_of(scheduled) for scheduled in batch.sequences]
        return [share for share in shares if share is not None]

    @torch.no_grad()  # no inference mode: what it makes could not be written to outside of it
    def _compute(self, shares: list[Share], undo: list[Callable[[], None]]) -> torch.Tensor:
        """Logits of all shares in their order; `undo` gets what takes back as much as was done."""
        self._rows.settle()
        groups: dict[tuple[int, ...], list[Share]] = {}
        for share in shares:
            groups.setdefault(share.key, []).append(share)
        computed = [self._compute_group(group, undo) for group in groups.values()]
        if len(computed) == 1:
            return computed[0]
        if not computed:
            num_vocabulary = self._network.shape.num_vocabulary
            return torch.empty(0, num_vocabulary, device=self._device.torch_device)
        logits: dict[int, torch.Tensor] = {}
        for group, rows in zip(groups.values(), computed, strict=True):
            counts = [len(share.positions) for share in group]
            ids = (share.seq_id for share in group)
            logits.update(zip(ids, rows.split(counts), strict=True))
        return torch.cat([logits[share.seq_id] for share in shares])

    def _compute_group(self, group: list[Share], undo: list[Callable[[], None]]) -> torch.Tensor:
        seq_ids = [share.seq_id for share in group]
        if group[0].is_first:
            logits, layers = self._network.compute(group, None)
            self._rows.put(seq_ids, layers)
            undo += [lambda seq_id=seq_id: self._rows.release(seq_id) for seq_id in seq_ids]
        else:
            layers = self._rows.take(seq_ids)
            undo += [remember(layer) for layer in layers]
            logits, _ = self._network.compute(group, layers)
        return logits

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Never asked for: the traits say that nothing is shared."""
        raise NotImplementedError(f"sharing {num_tokens} tokens of {source} with {target}")

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """See `Executor`. The memory is free with the next step."""
        if not num_tokens:
            self.release(seq_id)
        elif num_tokens < self._num_computed[seq_id]:
            self._num_computed[seq_id] = num_tokens
            self._rows.trim(seq_id, num_tokens)

    def release(self, seq_id: int) -> None:
        """See `Executor`. Of one among others the memory is free with the next step."""
        self._num_computed.pop(seq_id, None)
        self._rows.release(seq_id)

    def close(self) -> None:
        """Let go of the caches and of the model."""
        self._num_computed.clear()
        self._rows.clear()
        self._network.close()


def create_network(model: PreTrainedModel) -> Network:
    """How a loaded model is run, found out with a few tokens.

    Raises:
        ModelError: it cannot be, with the reason.
    """
    if model.config.is_encoder_decoder:
        return EncoderDecoderNetwork(model)
    return DecoderNetwork(model)


def create_cached_model(
    model: PreTrainedModel, device: TorchDevice, engine: EngineSettings
) -> CachedModel:
    """Plan the memory that is left, and make a `CachedModel` of a loaded model.

    Raises:
        ModelError: the model has no cache that sequences can be told apart in.
        BackendError: a flag contradicts another, the model or the memory.
    """
    network = create_network(model)
    plan = make_state_plan(network.shape, device.free_bytes(), engine)
    return CachedModel(network, device, plan)
