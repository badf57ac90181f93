"""`TokenChoice`: each row's token: the highest, or one that is drawn after temperature and cuts.

Most cuts leave few tokens, which are looked at alone; where that was too few, all are.
"""

from enum import Enum
from typing import Final, NamedTuple

import torch
from backplane_core.sampling import SamplingParams

from backplane_torch.engine.sampling.candidates import Draw, DrawnRows
from backplane_torch.engine.sampling.highest import argmax

#: In place of a token id: none is possible.
NO_TOKEN: Final = -1


class Looks(NamedTuple):
    """How many of a row's highest are looked at alone.

    Attributes:
        first: where `top_p` alone cuts; these may turn out to be too few.
        most: of all but the largest `top_k`.
    """

    first: int = 256
    most: int = 2048


class _Way(Enum):
    """A row's token is the highest, or drawn: among its k highest, a first few, or all."""

    HIGHEST = "highest"
    TOP_K = "top_k"
    NUCLEUS = "nucleus"
    ALL = "all"


class TokenChoice:
    """Of a step's rows, [rows, vocabulary], float32, as the processors left them."""

    def __init__(
        self, logits: torch.Tensor, draws: list[Draw], looks: Looks, sum_dtype: torch.dtype
    ) -> None:
        """`sum_dtype` is that in which probabilities are summed up for a draw."""
        self._logits = logits
        self._draws = draws
        self._looks = looks
        self._sum_dtype = sum_dtype

    def first(self) -> torch.Tensor:
        """Token ids, [rows], or `NO_TOKEN` or `UNSETTLED` in their place. Waits for nothing."""
        ways: dict[_Way, list[int]] = {}
        for row, draw in enumerate(self._draws):
            ways.setdefault(self._way_of(draw.params), []).append(row)
        if len(ways) == 1:
            (way,) = ways
            return self._chosen(way, self._logits, self._draws)
        token_ids = self._logits.new_empty(len(self._draws), dtype=torch.int64)
        for way, rows in ways.items():
            index = self._index(rows)
            token_ids[index] = self._chosen(
                way, self._logits[index], [self._draws[row] for row in rows]
            )
        return token_ids

    def settled(self, rows: list[int]) -> torch.Tensor:
        """Token ids of rows that were `UNSETTLED`, from a look at all."""
        draws = [self._draws[row] for row in rows]
        return self._chosen(_Way.ALL, self._logits[self._index(rows)], draws)

    def _way_of(self, params: SamplingParams) -> _Way:
        if params.greedy:
            return _Way.HIGHEST
        if 0 < params.top_k < self._logits.shape[1]:
            return _Way.TOP_K if params.top_k <= self._looks.most else _Way.ALL
        return _Way.NUCLEUS if params.top_p < 1.0 else _Way.ALL

    def _chosen(self, way: _Way, logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
        if way is _Way.HIGHEST:
            return highest_ids(logits)
        peaks = logits.amax(-1, keepdim=True)
        rows = DrawnRows(logits - peaks, draws, self._sum_dtype)
        match way:
            case _Way.TOP_K:
                candidates = rows.top_k()
            case _Way.NUCLEUS:
                candidates = rows.first(min(self._looks.first, logits.shape[1]))
            case _:
                candidates = rows.all()
        token_ids = candidates.token_ids_at(rows.numbers)
        return token_ids.masked_fill_(~peaks.squeeze(1).isfinite(), NO_TOKEN)

    def _index(self, rows: list[int]) -> torch.Tensor:
        return torch.tensor(rows).to(self._logits.device, non_blocking=True)


def highest_ids(logits: torch.Tensor) -> torch.Tensor:
    """Of rows of any float type the id of the highest, or `NO_TOKEN` where that is no number."""
    values, token_ids = argmax(logits)
    return token_ids.masked_fill_(~values.isfinite(), NO_TOKEN)
