"""`FlatBatch`: a scheduled batch as tensors, the tokens of all sequences in one row."""

import dataclasses

import torch
from backplane_core.batching.executor import ScheduledBatch
from backplane_core.batching.logit_rows import logit_offsets

from backplane_torch.engine.devices.attention import Stretch


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatBatch:
    """What a forward pass is given.

    Attributes:
        token_ids, positions: [1, tokens].
        logit_rows: [rows], the tokens whose logits are asked for.
        stretches: per group of layers, each sequence's part.
        num_decodes: how many of these, the first ones, are one token long.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    logit_rows: torch.Tensor
    stretches: list[list[Stretch]]
    num_decodes: int


def flatten(batch: ScheduledBatch, num_groups: int, device: torch.device) -> FlatBatch:
    """Lay a batch out. Block tables are not copied: it is valid as long as the batch."""
    token_ids: list[int] = []
    positions: list[int] = []
    logit_rows: list[int] = []
    stretches: list[list[Stretch]] = [[] for _ in range(num_groups)]
    for scheduled in batch.sequences:
        begin, start = len(token_ids), scheduled.start
        token_ids += scheduled.token_ids
        end = len(token_ids)
        positions += range(start, start + end - begin)
        logit_rows += [begin + offset for offset in logit_offsets(scheduled)]
        for group, table in zip(stretches, scheduled.block_tables, strict=True):
            group.append(Stretch(begin=begin, end=end, start=start, block_table=table))
    return FlatBatch(
        token_ids=torch.tensor([token_ids], device=device),
        positions=torch.tensor([positions], device=device),
        logit_rows=torch.tensor(logit_rows, dtype=torch.long, device=device),
        stretches=stretches,
        num_decodes=batch.num_decodes,
    )
