"""`TorchExecutor`: a step is a forward pass, then sampling for the whole batch at once."""

import logging
import time

import torch
from backplane_core.batching.executor import Executor, ExecutorTraits, ScheduledBatch, StepResult
from backplane_core.errors import OutOfMemoryError

from backplane_torch.engine.batch_model import BatchModel
from backplane_torch.engine.devices.device import TorchDevice
from backplane_torch.engine.sampling.batch_sampler import BatchSampler

_log = logging.getLogger(__name__)


class TorchExecutor(Executor):
    """Owns the model and the sampler."""

    def __init__(self, model: BatchModel, sampler: BatchSampler, device: TorchDevice) -> None:
        self._model = model
        self._device = device
        self._sampler = sampler

    @property
    def traits(self) -> ExecutorTraits:
        """Those of the model."""
        return self._model.traits

    @torch.inference_mode()  # all of a step, or sampling could not write to what the model made
    def execute(self, batch: ScheduledBatch) -> StepResult:
        """Compute all sequences' tokens at once, then score and sample where asked."""
        logits = self._model.forward(batch)
        if not len(logits):
            return StepResult([None] * len(batch.sequences))
        started_s = time.perf_counter()
        try:
            results, scores = self._sampler.sample(batch.sequences, logits)
        except Exception as error:
            if not self._device.is_out_of_memory(error):
                raise
            _log.info("no memory to sample %d rows: %s", len(logits), error)
        else:
            return StepResult(results, time.perf_counter() - started_s, scores)
        # What is computed cannot be computed again by every model: these requests end.
        failure = OutOfMemoryError(
            f"there is no memory to sample {len(logits)} rows of logits at once",
            remedy="lower --max-batch-size",
        )
        asked = [one.sample or bool(one.scored_positions) for one in batch.sequences]
        return StepResult([failure if one else None for one in asked])

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """See `Executor`."""
        self._model.share_prefix(source, target, num_tokens)

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """See `Executor`."""
        self._model.trim(seq_id, num_tokens)

    def hand_over(self, seq_id: int, num_tokens: int) -> None:
        """See `Executor`: what sampling keeps of the sequence before is void."""
        super().hand_over(seq_id, num_tokens)
        self._sampler.forget(seq_id)

    def release(self, seq_id: int) -> None:
        """See `Executor`."""
        self._model.release(seq_id)
        self._sampler.forget(seq_id)

    def close(self) -> None:
        """Free the model."""
        self._model.close()
