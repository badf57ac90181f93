"""`TokenTable`: of each sequence the few tokens whose logits it changes one by one.

Those are the biased ones and, under penalties, those that came already. The device has them all; a
step brings it what is new, and changes all rows' logits at once.
"""

from typing import Final

import torch
from backplane_core.batching.sampling_needs import penalizes
from backplane_core.batching.sequence import Sequence

# A token that is biased, but has not come: neither in the prompt nor in the output.
_ABSENT: Final = -1
_FEWEST_ROWS: Final = 8
_FEWEST_PLACES: Final = 256


class TokenRow:
    """What the host knows of a sequence's row.

    Attributes:
        index: which one it is.
        times: of each place, how often its token is in the output; 0 is in the prompt alone.
    """

    def __init__(self, sequence: Sequence, index: int, num_tokens: int) -> None:
        params = sequence.sampling
        self.index: Final = index
        self._sequence = sequence
        self._num_tokens = num_tokens
        self._penalizes = penalizes(params)
        biased = [token_id for token_id in params.logit_bias if 0 <= token_id < num_tokens]
        self._places = {token_id: place for place, token_id in enumerate(biased)}
        self.biases: Final = [params.logit_bias[token_id] for token_id in biased]
        self.times = [_ABSENT] * len(biased)
        self._num_seen = sequence.num_prompt_tokens
        if self._penalizes:
            for token_id in sequence.token_ids[: self._num_seen]:
                if 0 <= token_id < num_tokens:
                    self.times[self._place_of(token_id)] = 0
        self._changed = dict(self._places)

    def news(self) -> list[list[int]]:
        """Row, place, token id and times of all that is others than when this was last asked."""
        if self._penalizes:
            token_ids = self._sequence.token_ids
            for token_id in token_ids[self._num_seen :]:
                if 0 <= token_id < self._num_tokens:
                    place = self._place_of(token_id)
                    self.times[place] = max(self.times[place], 0) + 1
                    self._changed[token_id] = place
            self._num_seen = len(token_ids)
        changed, self._changed = self._changed, {}
        return [
            [self.index, place, token_id, self.times[place]] for token_id, place in changed.items()
        ]

    def _place_of(self, token_id: int) -> int:
        place = self._places.setdefault(token_id, len(self.times))
        if place == len(self.times):
            self.times.append(_ABSENT)
        return place


class TokenTable:
    """For many sequences, each with a row of its own from `add` to `remove`."""

    def __init__(self, num_tokens: int, device: torch.device) -> None:
        self._num_tokens = num_tokens
        self._device = device
        self._free: list[int] = []
        self._ids = torch.zeros(0, _FEWEST_PLACES, dtype=torch.int64, device=device)
        self._times = torch.zeros(0, _FEWEST_PLACES, device=device)
        self._biases = torch.zeros(0, _FEWEST_PLACES, device=device)
        self._penalties = torch.zeros(0, 3, device=device)

    def add(self, sequence: Sequence) -> TokenRow:
        """Give a sequence a row; only one that biases or penalizes needs it."""
        if not self._free:
            self._grow(max(_FEWEST_ROWS, 2 * len(self._ids)), self._ids.shape[1])
        row = TokenRow(sequence, self._free.pop(), self._num_tokens)
        self._widen(len(row.times))
        params = sequence.sampling
        penalties = params.repetition_penalty, params.frequency_penalty, params.presence_penalty
        self._penalties[row.index] = self._upload(torch.tensor(penalties))
        self._biases[row.index] = 0.0
        self._biases[row.index, : len(row.biases)] = self._upload(torch.tensor(row.biases))
        return row

    def remove(self, row: TokenRow) -> None:
        """Take a row back."""
        self._free.append(row.index)

    def apply(self, logits: torch.Tensor, places: list[int], rows: list[TokenRow]) -> None:
        """Bias and penalize rows of logits, in place.

        Args:
            logits: [rows, vocabulary], float32.
            places: which rows of these.
            rows: the table's, one for each.
        """
        self._update(rows)
        figures = [
            [place, row.index, len(row.times)]
            for place, row in zip(places, rows, strict=True)
            if row.times
        ]
        if not figures:
            return
        width = max(size for _, _, size in figures)
        index = self._upload(torch.tensor(figures)).unsqueeze(-1)
        logit_rows, table_rows, sizes = index.unbind(1)
        # Where a row has no more, its first token stands again, to be given the same once more.
        columns = torch.arange(width, device=self._device)
        columns = columns.where(columns < sizes, 0)
        token_ids = self._ids[table_rows, columns]
        times = self._times[table_rows, columns]
        repetition, frequency, presence = self._penalties[table_rows].unbind(-1)
        values = logits[logit_rows, token_ids] + self._biases[table_rows, columns]
        repeated = torch.where(values > 0, values / repetition, values * repetition)
        values = torch.where(times > _ABSENT, repeated, values)
        values -= times.clamp(min=0) * frequency + (times > 0) * presence
        logits[logit_rows, token_ids] = values

    def _update(self, rows: list[TokenRow]) -> None:
        """Bring the device what is new."""
        news = [entry for row in rows for entry in row.news()]
        if not news:
            return
        self._widen(max(len(row.times) for row in rows))
        table_rows, places, token_ids, times = self._upload(torch.tensor(news)).unbind(1)
        self._ids[table_rows, places] = token_ids
        self._times[table_rows, places] = times.float()

    def _widen(self, num_places: int) -> None:
        width = self._ids.shape[1]
        if num_places > width:
            self._grow(len(self._ids), max(num_places, 2 * width))

    def _grow(self, num_rows: int, width: int) -> None:
        before = len(self._ids)
        self._ids = _grown(self._ids, num_rows, width)
        self._times = _grown(self._times, num_rows, width)
        self._biases = _grown(self._biases, num_rows, width)
        self._penalties = _grown(self._penalties, num_rows, 3)
        self._free += range(num_rows - 1, before - 1, -1)

    def _upload(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self._device, non_blocking=True)


def _grown(table: torch.Tensor, num_rows: int, width: int) -> torch.Tensor:
    grown = table.new_zeros(num_rows, width)
    grown[: table.shape[0], : table.shape[1]] = table
    return grown
