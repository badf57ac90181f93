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
    """Of a step's rows. Nothing here waits for the device."""

    def __init__(
        self, logits: torch.Tensor, draws: list[Draw], looks: Looks, sum_dtype: torch.dtype
    ) -> None:
        """Take rows over.

        Args:
            logits: [rows, vocabulary], float32, as the processors left them; written to.
            draws: one per row.
            looks: how many to look at alone.
            sum_dtype: that in which probabilities are summed up for a draw.
        """
        self._draws = draws
        self._looks = looks
        figures = torch.tensor([draw.figures() for draw in draws], dtype=sum_dtype)
        self._figures = figures.to(logits.device, non_blocking=True)
        self._peaks = logits.amax(-1, keepdim=True)
        # In place, as writing elsewhere costs a CPU several times as much. The highest stay so.
        self._logits = logits.sub_(self._peaks)
        if any(draw.temperature != 1.0 for draw in draws):
            self._logits.div_(self._figures[:, :1].float())

    def first(self) -> torch.Tensor:
        """Token ids, [rows], or `NO_TOKEN` or `UNSETTLED` in their place."""
        ways: dict[_Way, list[int]] = {}
        for row, draw in enumerate(self._draws):
            ways.setdefault(self._way_of(draw.params), []).append(row)
        if len(ways) == 1:
            (way,) = ways
            token_ids = self._chosen(way, self._logits, self._figures, self._draws)
        else:
            token_ids = self._figures.new_empty(len(self._draws), dtype=torch.int64)
            for way, rows in ways.items():
                token_ids.index_copy_(0, self._index(rows), self._chosen_of(way, rows))
        return token_ids.masked_fill_(~self._peaks.squeeze(1).isfinite(), NO_TOKEN)

    def settled(self, rows: list[int]) -> torch.Tensor:
        """Token ids of rows that were `UNSETTLED`, from a look at all."""
        return self._chosen_of(_Way.ALL, rows)

    def _chosen_of(self, way: _Way, rows: list[int]) -> torch.Tensor:
        index = self._index(rows)
        draws = [self._draws[row] for row in rows]
        return self._chosen(way, self._logits[index], self._figures[index], draws)

    def _way_of(self, params: SamplingParams) -> _Way:
        if params.greedy:
            return _Way.HIGHEST
        if 0 < params.top_k < self._logits.shape[1]:
            return _Way.TOP_K if params.top_k <= self._looks.most else _Way.ALL
        return _Way.NUCLEUS if params.top_p < 1.0 else _Way.ALL

    def _chosen(
        self, way: _Way, logits: torch.Tensor, figures: torch.Tensor, draws: list[Draw]
    ) -> torch.Tensor:
        if way is _Way.HIGHEST:
            return argmax(logits)[1]
        rows = DrawnRows(logits, figures, draws)
        match way:
            case _Way.TOP_K:
                candidates = rows.top_k()
            case _Way.NUCLEUS:
                candidates = rows.first(min(self._looks.first, logits.shape[1]))
            case _:
                candidates = rows.all()
        return candidates.token_ids_at(rows.numbers)

    def _index(self, rows: list[int]) -> torch.Tensor:
        return torch.tensor(rows).to(self._logits.device, non_blocking=True)


def highest_ids(logits: torch.Tensor) -> torch.Tensor:
    """Of rows of any float type the id of the highest, or `NO_TOKEN` where that is no number."""
    values, token_ids = argmax(logits)
    return token_ids.masked_fill_(~values.isfinite(), NO_TOKEN)
