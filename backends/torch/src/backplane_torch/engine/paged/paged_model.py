"""`PagedModel`: forward passes of a transformers model over a paged cache."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import torch
from backplane_core.batching.executor import ExecutorTraits, MemoryLayout, ScheduledBatch
from backplane_core.errors import OutOfMemoryError
from torch import nn
from transformers import PreTrainedModel

from backplane_torch.engine.batch_model import BatchModel
from backplane_torch.engine.devices.attention import AttentionKernel, AttentionShape
from backplane_torch.engine.devices.device import TorchDevice
from backplane_torch.engine.paged.attention_function import AttentionCall, hang
from backplane_torch.engine.paged.flat_batch import FlatBatch, flatten
from backplane_torch.engine.paged.layer_survey import SurveyedLayer
from backplane_torch.kv_plan import KvPlan, LayerGroup, PagedShape

_log = logging.getLogger(__name__)


def shape_of(layers: Sequence[SurveyedLayer], config: Any, dtype: torch.dtype) -> PagedShape:
    """What of a surveyed model matters to its memory."""
    text = config.get_text_config()
    return PagedShape(
        groups=tuple(
            LayerGroup(
                num_layers=len(group),
                bytes_per_token=dtype.itemsize * sum(one.shape.values_per_token for one in group),
                window=window,
            )
            for window, group in _by_window(layers).items()
        ),
        max_positions=text.max_position_embeddings,
        num_vocabulary=text.vocab_size,
    )


def traits_of(plan: KvPlan) -> ExecutorTraits:
    """What the scheduler must respect."""
    return ExecutorTraits(
        layout=MemoryLayout.PAGED,
        max_sequences=plan.running_sequences,
        cache_tokens=plan.cache_tokens,
        block_size=plan.block_size,
        block_groups=plan.block_groups,
        slot_tokens=plan.max_total_tokens,
        max_batch_tokens=plan.batch_tokens,
        max_scored_tokens=plan.scored_tokens,
    )


class PagedModel(BatchModel):
    """Owns the model and its layers' caches."""

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Sequence[SurveyedLayer],
        device: TorchDevice,
        plan: KvPlan,
    ) -> None:
        self._model = model
        self._device = device
        self._traits = traits_of(plan)
        self._kernel: AttentionKernel[Any, Any] = device.attention(model.dtype, plan.block_size)
        self._groups = _by_window(layers)
        self._step = _StepPlans()
        for index, group in enumerate(self._groups.values()):
            num_blocks = plan.block_groups[index].num_blocks
            for layer in group:
                cache = self._kernel.create_cache(layer.shape, num_blocks)
                attention = _LayerAttention(layer.shape, self._kernel, cache, self._step, index)
                hang(layer.module, attention)

    @property
    def traits(self) -> ExecutorTraits:
        """Constant."""
        return self._traits

    def forward(self, batch: ScheduledBatch) -> torch.Tensor:
        """See `BatchModel`. What a failed pass wrote is written again by the next."""
        try:
            with torch.no_grad():
                flat = flatten(batch, len(self._groups), self._device.torch_device)
                return self._forward(flat)
        except Exception as error:
            if not self._device.is_out_of_memory(error):
                raise
            _log.info("no memory for a step of %d tokens: %s", batch.num_tokens, error)
        finally:
            self._step.of_group = []
        # Out here the error is gone, and with its traceback the tensors that the pass had made.
        raise OutOfMemoryError(
            f"there is no memory to compute {batch.num_tokens} tokens of "
            f"{len(batch.sequences)} sequences at once",
            remedy="lower --max-batch-prefill-tokens or --max-batch-total-tokens",
        )

    def _forward(self, flat: FlatBatch) -> torch.Tensor:
        self._step.of_group = [
            self._kernel.plan(stretches, flat.num_decodes, window)
            for window, stretches in zip(self._groups, flat.stretches, strict=True)
        ]
        model: nn.Module = self._model
        inputs = {"input_ids": flat.token_ids, "position_ids": flat.positions, "use_cache": False}
        if not len(flat.logit_rows):
            self._model.base_model(**inputs)
            self._device.synchronize()
            return torch.empty(0, 0)
        output = model(**inputs, logits_to_keep=flat.logit_rows)
        self._device.synchronize()
        return output.logits[0]

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Nothing: the block tables say it all."""

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Nothing: what lies behind is written anew before it is read."""

    def release(self, seq_id: int) -> None:
        """Nothing: its blocks are the memory's to give."""

    def close(self) -> None:
        """Let go of the caches; the weights go with the model."""
        for group in self._groups.values():
            for layer in group:
                hang(layer.module, None)


@dataclasses.dataclass
class _StepPlans:
    """The kernel's plans of the pass that runs, one for each group of layers."""

    of_group: list[Any] = dataclasses.field(default_factory=list[Any])


class _LayerAttention:
    """One attention module's share of the cache."""

    def __init__(
        self,
        shape: AttentionShape,
        kernel: AttentionKernel[Any, Any],
        cache: Any,
        step: _StepPlans,
        group: int,
    ) -> None:
        self._shape = shape
        self._kernel = kernel
        self._cache = cache
        self._step = step
        self._group = group

    def attend(self, call: AttentionCall) -> torch.Tensor:
        """See `AttentionTarget`; of the options only the sinks are not in the shape already."""
        if call.mask is not None:
            raise AssertionError("a model hands a mask to an attention that has none")
        plan = self._step.of_group[self._group]
        sinks = call.options.get("s_aux") if self._shape.has_sinks else None
        query, key, value = call.query, call.key, call.value
        return self._kernel.attend(
            *(self._shape, self._cache, plan), query=query, key=key, value=value, sinks=sinks
        )


def _by_window(layers: Sequence[SurveyedLayer]) -> dict[int | None, list[SurveyedLayer]]:
    """Layers by window, those without one first."""
    groups: dict[int | None, list[SurveyedLayer]] = {}
    for layer in sorted(layers, key=lambda one: one.shape.window is not None):
        groups.setdefault(layer.shape.window, []).append(layer)
    return groups
