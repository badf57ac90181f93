"""`BatchModel`: forward passes of scheduled batches, however the model keeps keys and values.

Knows nothing of sampling; the executor hands its logits on.
"""

from abc import ABC, abstractmethod

import torch
from backplane_core.batching.executor import ExecutorTraits, ScheduledBatch


class BatchModel(ABC):
    """A loaded model with the memory of its sequences. Called from one thread only."""

    @property
    @abstractmethod
    def traits(self) -> ExecutorTraits:
        """Constant."""

    @abstractmethod
    def forward(self, batch: ScheduledBatch) -> torch.Tensor:
        """Compute a batch, writing its keys and values (or states).

        Returns:
            Logits, [rows, vocabulary], in the model's dtype and on its device: for each sequence in
            the batch's order a row per scored position, then one for the last position if it is
            sampled and not scored already (`backplane_core.batching.logit_rows`). The caller may
            write to them. No rows where none is asked for.

        Raises:
            OutOfMemoryError: nothing was computed, and no sequence has changed.
        """

    @abstractmethod
    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """See `Executor`."""

    @abstractmethod
    def trim(self, seq_id: int, num_tokens: int) -> None:
        """See `Executor`."""

    @abstractmethod
    def release(self, seq_id: int) -> None:
        """See `Executor`."""

    @abstractmethod
    def close(self) -> None:
        """Free the weights and the memory."""
