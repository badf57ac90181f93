"""What changes rows of logits before temperature and cuts: watermark, bias, penalties, masks.

The order is `docs/sampling.md`'s. Each touches the rows of those that ask for it, all at once.
"""

import torch
from backplane_core.errors import BackplaneError

from backplane_torch.engine.sampling.green_list import GreenList
from backplane_torch.engine.sampling.sequence_state import SequenceState
from backplane_torch.engine.sampling.token_table import TokenTable

_BITS = 8


class LogitsProcessors:
    """For all sequences of an engine; what is kept of each is its `SequenceState`'s."""

    def __init__(self, num_tokens: int, table: TokenTable, device: torch.device) -> None:
        self._num_tokens = num_tokens
        self._table = table
        self._device = device
        self._greens: GreenList | None = None
        # Of each byte of a grammar's mask, what its eight tokens are given.
        allowed = torch.arange(256).unsqueeze(1) >> torch.arange(_BITS) & 1
        self._of_byte = torch.where(allowed.bool(), 0.0, -torch.inf).to(device)

    def apply(self, logits: torch.Tensor, states: list[SequenceState]) -> dict[int, BackplaneError]:
        """Change the rows of these sequences, [rows, vocabulary], float32, in place.

        Returns:
            By row, why a grammar could not be followed.
        """
        self._mark(logits, states)
        steered = [
            (row, state.token_row)
            for row, state in enumerate(states)
            if state.token_row is not None
        ]
        if steered:
            places, token_rows = zip(*steered, strict=True)
            self._table.apply(logits, list(places), list(token_rows))
        self._mask_ends(logits, states)
        return self._mask_by_grammars(logits, states)

    def _mark(self, logits: torch.Tensor, states: list[SequenceState]) -> None:
        marked = [
            (row, state.sequence.token_ids[-1], mark)
            for row, state in enumerate(states)
            if (mark := state.sequence.sampling.watermark) is not None
        ]
        if marked:
            if self._greens is None:
                self._greens = GreenList(self._num_tokens, self._device)
            rows, previous, marks = map(list, zip(*marked, strict=True))
            self._add(logits, rows, self._greens.bonuses(previous, marks))

    def _mask_ends(self, logits: torch.Tensor, states: list[SequenceState]) -> None:
        """A guide's mask has done so for its sequence."""
        masked = [
            [row, token_id]
            for row, state in enumerate(states)
            for token_id in state.masked_ends()
            if 0 <= token_id < self._num_tokens
        ]
        if masked:
            rows, token_ids = torch.tensor(masked).to(self._device, non_blocking=True).unbind(1)
            logits[rows, token_ids] = -torch.inf

    def _mask_by_grammars(
        self, logits: torch.Tensor, states: list[SequenceState]
    ) -> dict[int, BackplaneError]:
        failed: dict[int, BackplaneError] = {}
        rows: list[int] = []
        packed = bytearray()
        num_bytes = -(-self._num_tokens // _BITS)
        for row, state in enumerate(states):
            if (guide := state.sequence.guide) is None:
                continue
            try:
                mask = guide.allowed()
            except BackplaneError as error:
                failed[row] = error
                continue
            rows.append(row)
            packed += bytes(mask[:num_bytes]).ljust(num_bytes, b"\0")
        if rows:
            masks = torch.frombuffer(packed, dtype=torch.uint8).view(len(rows), num_bytes)
            masks = masks.to(self._device, non_blocking=True).int()
            forbidden = torch.nn.functional.embedding(masks, self._of_byte)
            self._add(logits, rows, forbidden.flatten(1)[:, : self._num_tokens])
        return failed

    def _add(self, logits: torch.Tensor, rows: list[int], values: torch.Tensor) -> None:
        if len(rows) == len(logits):
            logits += values
        else:
            index = torch.tensor(rows).to(self._device, non_blocking=True)
            logits.index_add_(0, index, values)
