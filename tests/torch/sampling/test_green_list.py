"""The green list of many sequences at once is core's."""

import pytest
import torch
from backplane_core.sampling import Watermark
from backplane_core.watermark import green_ids
from backplane_torch.engine.sampling import green_list
from backplane_torch.engine.sampling.green_list import GreenList

from tests.torch.sampling.row_sampler import CPU


@pytest.mark.parametrize("num_at_once", [1, 1200, 1 << 18])
def test_each_row_has_its_own_greens_and_bonus(monkeypatch, num_at_once):
    monkeypatch.setattr(green_list, "_NUM_AT_ONCE", num_at_once)
    previous = [0, 3, 499, 128_000, 3]
    marks = [Watermark(gamma=gamma, delta=gamma + 1) for gamma in (0.1, 0.5, 0.9, 0.25, 0.999)]
    bonuses = GreenList(500, CPU).bonuses(previous, marks)
    assert bonuses.dtype is torch.float32
    for row, token_id, mark in zip(bonuses, previous, marks, strict=True):
        assert row.nonzero().flatten().tolist() == green_ids(token_id, 500, mark.gamma)
        assert row.unique().tolist() == pytest.approx([0.0, mark.delta])
