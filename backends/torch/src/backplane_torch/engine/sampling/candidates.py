"""`DrawnRows`: rows under temperature and cuts, and the `Candidates` that are left to draw from.

A cut that leaves few tokens is made among few: a row's highest, by ascending id.
"""

import math
from typing import Final, NamedTuple

import torch
from backplane_core.batching.sampling_needs import HOTTEST
from backplane_core.sampling import SamplingParams

from backplane_torch.engine.sampling.draw import column_at
from backplane_torch.engine.sampling.highest import highest
from backplane_torch.engine.sampling.truncation import (
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical_p,
)

#: In place of a token id: too few were looked at.
UNSETTLED: Final = -2


class Draw(NamedTuple):
    """What a row asks: its parameters, and its number in [0, 1) where it is drawn at random."""

    params: SamplingParams
    number: float

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 where the highest is taken."""
        return 1.0 if self.params.greedy else min(self.params.temperature, HOTTEST)

    def figures(self) -> list[float]:
        """A row of `DrawnRows`' table, after the temperature.

        A cut that is off has what keeps all, whatever sums are rounded to.
        """
        params = self.params
        return [
            self.temperature,
            params.top_k if params.top_k > 0 else math.inf,
            params.top_p if params.top_p < 1.0 else math.inf,
            params.min_p,
            params.typical_p if params.typical_p < 1.0 else math.inf,
            self.number,
        ]


class Candidates(NamedTuple):
    """What cuts leave of rows.

    Attributes:
        weights: [rows, columns], float32; 0 is cut.
        ids: of the columns, ascending in each row; None is all there are.
        enough: whether they are all that the cuts leave, [rows]; None is in every row.
    """

    weights: torch.Tensor
    ids: torch.Tensor | None = None
    enough: torch.Tensor | None = None

    def token_ids_at(self, numbers: torch.Tensor) -> torch.Tensor:
        """What numbers in [0, 1), [rows], draw, or `UNSETTLED`."""
        token_ids = column_at(self.weights, numbers)
        if self.ids is not None:
            token_ids = self.ids.gather(1, token_ids.unsqueeze(1)).squeeze(1)
        return token_ids if self.enough is None else token_ids.masked_fill_(~self.enough, UNSETTLED)


class DrawnRows:
    """Rows that are all drawn in the same way; each kind of candidates is another way."""

    def __init__(self, logits: torch.Tensor, figures: torch.Tensor, draws: list[Draw]) -> None:
        """Of logits that are divided by the temperature already; `figures` are the draws'."""
        self._logits = logits
        self._params = [draw.params for draw in draws]
        columns = figures[:, 1:].unbind(1)
        self._top_k, self._top_p, self._min_p, self._typical_p, self.numbers = columns

    def top_k(self) -> Candidates:
        """The k highest, where each row has such a k, and what other cuts leave of them."""
        most = max(params.top_k for params in self._params)
        ids, ranks = highest(self._logits, most).sort(-1)
        logits = self._logits.gather(1, ids)
        logits.masked_fill_(ranks >= self._top_k.unsqueeze(1), -torch.inf)
        return Candidates(self._cut(logits, logits.softmax(-1)), ids)

    def first(self, num_first: int) -> Candidates:
        """Those of the highest that cuts leave; enough where all of them reach `top_p`."""
        ids = highest(self._logits, num_first).sort(-1).values
        weights = self._logits.softmax(-1).gather(1, ids)
        enough = weights.sum(-1) >= self._top_p
        return Candidates(self._cut(self._logits.gather(1, ids), weights), ids, enough)

    def all(self) -> Candidates:
        """What cuts leave of the whole vocabulary."""
        logits = self._logits
        if any(0 < params.top_k < logits.shape[1] for params in self._params):
            logits = keep_top_k(logits, self._top_k)
        return Candidates(self._cut(logits, logits.softmax(-1)))

    def _cut(self, logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weights after all cuts but `top_k`, each made where any row asks for it."""
        if any(params.top_p < 1.0 for params in self._params):
            weights = keep_top_p(logits, weights, self._top_p)
        if any(params.min_p > 0.0 for params in self._params):
            weights = keep_min_p(weights, self._min_p)
        if any(params.typical_p < 1.0 for params in self._params):
            weights = keep_typical_p(weights, self._typical_p)
        return weights
