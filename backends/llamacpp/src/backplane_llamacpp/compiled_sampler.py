"""A step's rows by the compiled loops: what each sequence asks, kept ready from step to step.

Knows nothing of contexts or batches; the rules are `native/sample.c`'s.
"""

import ctypes
from collections.abc import Sequence as Items
from itertools import repeat
from typing import Final

import numpy as np
from backplane_core import watermark
from backplane_core.batching.executor import SampledTokens, ScheduledSequence
from backplane_core.batching.sampling_needs import (
    HOTTEST,
    end_token_ids_to_mask,
    no_token,
    penalizes,
)
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import BackplaneError, GenerationError
from backplane_core.sampling import uniform

from backplane_llamacpp.logits_processors import TokenCounts, biases_of
from backplane_llamacpp.native import rows
from backplane_llamacpp.native.rows import RowSampler, RowTask
from backplane_llamacpp.sampler import Logits, Mask, Result, Score, mask_of

_NOTHING: Final[list[int]] = []


class SequenceRow:
    """What a sequence asks of its rows, and the arrays that say so."""

    def __init__(self, sequence: Sequence, n_vocab: int, suppressed: list[int]) -> None:
        self.sequence = sequence
        params = sequence.sampling
        self._suppressed = suppressed
        self._counts = TokenCounts(sequence) if penalizes(params) else None
        self._watermark = params.watermark
        task = self.task = RowTask(
            repetition_penalty=params.repetition_penalty,
            frequency_penalty=params.frequency_penalty,
            presence_penalty=params.presence_penalty,
            greedy=params.greedy,
            temperature=min(params.temperature, HOTTEST),
            top_p=params.top_p,
            min_p=params.min_p,
            typical_p=params.typical_p,
            top_k=min(max(0, params.top_k), n_vocab),
            num_top=-1,
        )
        self.address: Final = ctypes.addressof(task)
        if params.watermark is not None:
            task.watermarked = True
            task.green_below = watermark.threshold(params.watermark.gamma)
            task.green_bonus = params.watermark.delta
        if params.logit_bias:
            self._bias_ids, self._biases = biases_of(params, n_vocab)
            task.num_biases = len(self._bias_ids)
            task.bias_ids, task.biases = self._bias_ids.ctypes.data, self._biases.ctypes.data
        num_top = sequence.request.top_logprobs
        if num_top is not None:
            task.num_top = num_top = min(num_top, n_vocab)
            self._top_ids = np.empty(num_top, np.int32)
            self._top_logprobs = np.empty(num_top)
            task.top_ids = self._top_ids.ctypes.data
            task.top_logprobs = self._top_logprobs.ctypes.data
        self._may_not_end = sequence.guide is None and sequence.stopping.min_new_tokens > 0
        self._n_vocab = n_vocab
        self._ban(end_token_ids_to_mask(sequence) if self._may_not_end else [])

    def prepare(self, logits: int, ahead: list[int]) -> None:
        """Say what the next token hangs on.

        Args:
            logits: the row's address.
            ahead: tokens that the sequence has beyond those it knows of.
        """
        task, sequence = self.task, self.sequence
        task.logits = logits
        if not task.greedy:
            task.number = uniform(sequence.seed, len(sequence.token_ids) + len(ahead))
        if self._watermark is not None:
            task.green_key = watermark.key_of((ahead or sequence.token_ids)[-1])
        if (counts := self._counts) is not None:
            if counts.update(ahead):
                task.seen_ids, task.seen_counts = counts.ids.ctypes.data, counts.times.ctypes.data
            task.num_seen = counts.size
        if self._may_not_end and not end_token_ids_to_mask(sequence, len(ahead)):
            self._may_not_end = False
            self._ban([])

    def wait_for_mask(self) -> None:
        """Wait for what the grammar lets come next.

        Raises:
            BackplaneError: it cannot be told; this sequence alone is concerned.
        """
        if (mask := mask_of(self.sequence)) is not None:
            if not len(mask):
                raise GenerationError("the grammar could not be followed: it gave no mask")
            self._mask: Mask = mask
            self.task.mask, self.task.num_mask_bytes = mask.ctypes.data, len(mask)

    def result(self) -> Result:
        """What came of it."""
        task = self.task
        if task.status != rows.DONE:
            return _failure(task.status)
        if task.num_top < 0:
            return SampledTokens([task.token])
        top = None
        if task.num_top:
            top = [list(zip(self._top_ids.tolist(), self._top_logprobs.tolist(), strict=True))]
        return SampledTokens([task.token], [task.logprob], top)

    def _ban(self, ends: list[int]) -> None:
        banned = dict.fromkeys(self._suppressed + ends)
        ids = [token_id for token_id in banned if 0 <= token_id < self._n_vocab]
        self._banned_ids = np.array(ids, np.int64)
        self.task.num_banned, self.task.banned_ids = len(ids), self._banned_ids.ctypes.data


class CompiledSampler:
    """For many sequences: what they ask is kept per `seq_id` until `forget`."""

    def __init__(
        self, library: ctypes.CDLL, n_vocab: int, suppressed: list[int], num_threads: int
    ) -> None:
        self._n_vocab: Final = n_vocab
        self._suppressed: Final = suppressed
        self._sampler: Final = RowSampler(library, n_vocab, num_threads)
        self._sequences: dict[int, SequenceRow] = {}

    def forget(self, seq_id: int) -> None:
        """Drop what a sequence asks."""
        self._sequences.pop(seq_id, None)

    def tokens(
        self,
        wanted: list[ScheduledSequence],
        logits: Logits,
        places: Items[int],
        ahead: Items[list[int]] | None = None,
    ) -> list[Result]:
        """The next token of each, from the row at its place.

        `ahead` are tokens of each beyond those it knows of.
        """
        start, stride = logits.ctypes.data, logits.strides[0]
        asked = [self._row_of(scheduled) for scheduled in wanted]
        plain: list[int] = []
        guided: list[SequenceRow] = []
        for row, place, unknown in zip(asked, places, ahead or repeat(_NOTHING)):  # noqa: B905 -- or endless
            row.prepare(start + place * stride, unknown)
            if row.sequence.guide is None:
                plain.append(row.address)
            else:
                guided.append(row)
        if plain:
            self._sampler.run(plain)
        failed: dict[SequenceRow, BackplaneError] = {}
        if guided:  # last: until their turn comes their masks are being made
            for row in guided:
                try:
                    row.wait_for_mask()
                except BackplaneError as error:
                    failed[row] = error
            self._sampler.run([row.address for row in guided if row not in failed])
        if failed:
            return [failed[row] if row in failed else row.result() for row in asked]
        return [row.result() for row in asked]

    def scores(self, logits: Logits, token_ids: list[int], num_top: int) -> list[Score]:
        """Of each row the log-probability of a token, and of the `num_top` highest."""
        num_top = min(num_top, self._n_vocab)
        start, stride = logits.ctypes.data, logits.strides[0]
        top_ids = np.empty((len(token_ids), num_top), np.int32)
        top_logprobs = np.empty((len(token_ids), num_top))
        tasks = [
            RowTask(
                scored=True,
                logits=start + place * stride,
                token=token_id,
                num_top=num_top,
                top_ids=top_ids.ctypes.data + place * top_ids.strides[0],
                top_logprobs=top_logprobs.ctypes.data + place * top_logprobs.strides[0],
            )
            for place, token_id in enumerate(token_ids)
        ]
        self._sampler.run([ctypes.addressof(task) for task in tasks])
        tops = zip(top_ids.tolist(), top_logprobs.tolist(), strict=True)
        return [
            (task.logprob, list(zip(ids, logprobs, strict=True)))
            for task, (ids, logprobs) in zip(tasks, tops, strict=True)
        ]

    def _row_of(self, scheduled: ScheduledSequence) -> SequenceRow:
        seq_id, sequence = scheduled.seq_id, scheduled.sequence
        row = self._sequences.get(seq_id)
        if row is None or row.sequence is not sequence:
            row = SequenceRow(sequence, self._n_vocab, self._suppressed)
            self._sequences[seq_id] = row
        return row


def _failure(status: int) -> GenerationError:
    if status == rows.NO_TOKEN:
        return no_token()
    return GenerationError("the token could not be sampled: there is no memory to sort with")
