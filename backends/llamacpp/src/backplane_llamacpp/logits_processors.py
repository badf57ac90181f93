"""What changes a row of logits before the draw: watermark, bias, penalties, masks, in this order.

The semantics are `docs/sampling.md`'s. Knows nothing of temperatures and cuts.
"""

import contextlib
from collections.abc import Generator
from collections.abc import Sequence as Items
from itertools import chain

import numpy as np
import numpy.typing as npt
from backplane_core import watermark
from backplane_core.batching.sampling_needs import end_token_ids_to_mask, penalizes
from backplane_core.batching.sequence import Sequence
from backplane_core.sampling import SamplingParams, Watermark

from backplane_llamacpp.sampler import Logits

Flags = npt.NDArray[np.bool_]


class TokenCounts:
    """Which tokens stand in a sequence, and how often in its output, kept up step by step.

    Attributes:
        size: how many distinct tokens there are.
        ids: theirs, the first `size`.
        times: how often each is in the output, likewise.
    """

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self._num_seen = sequence.num_prompt_tokens
        prompt = dict.fromkeys(sequence.token_ids[: sequence.num_prompt_tokens])
        self._places = {token_id: place for place, token_id in enumerate(prompt)}
        # A token of the prompt alone is there, no times: the repetition penalty looks at it.
        self.ids = np.fromiter(prompt, np.int64, len(prompt))
        self.times = np.zeros(len(prompt))
        self.size = len(prompt)
        self._shown: npt.NDArray[np.int64] | None = None

    def update(self, ahead: Items[int] = ()) -> bool:
        """Count what is new; whether the arrays are others than before, and at first.

        `ahead` are tokens beyond those that the sequence knows of, which it will get.
        """
        token_ids, places = self.sequence.token_ids, self._places
        before = self._shown
        num_unseen_ahead = min(len(ahead), len(token_ids) + len(ahead) - self._num_seen)
        for token_id in chain(token_ids[self._num_seen :], ahead[len(ahead) - num_unseen_ahead :]):
            place = places.setdefault(token_id, len(places))
            if place == len(self.ids):
                self.ids = np.append(self.ids, np.zeros(place + 1, np.int64))
                self.times = np.append(self.times, np.zeros(place + 1))
            self.ids[place] = token_id
            self.times[place] += 1
        self._num_seen = len(token_ids) + len(ahead)
        self.size = len(places)
        self._shown = self.ids
        return self._shown is not before


class GreenList:
    """Which tokens of a vocabulary a watermark prefers: `backplane_core.watermark` for all."""

    def __init__(self, n_vocab: int) -> None:
        self._mixed = _mix32(np.arange(n_vocab, dtype=np.uint32))

    def after(self, previous: int, gamma: float) -> Flags:
        """Whether each token is green after `previous`."""
        key = np.uint32(watermark.key_of(previous))
        return _mix32(self._mixed ^ key) < np.uint32(watermark.threshold(gamma))


def _mix32(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """`watermark.mix32` of each; products wrap at 32 bits by themselves. Overwrites `values`."""
    first, second, third = (np.uint32(shift) for shift in watermark.SHIFTS)
    values ^= values >> first
    values *= np.uint32(watermark.MULTIPLIERS[0])
    values ^= values >> second
    values *= np.uint32(watermark.MULTIPLIERS[1])
    values ^= values >> third
    return values


class LogitsProcessors:
    """For many sequences; keeps penalty counts per `seq_id` until `forget`.

    `suppressed_token_ids` never come: the model file says so.
    """

    def __init__(self, n_vocab: int, suppressed_token_ids: list[int]) -> None:
        self._n_vocab = n_vocab
        self._suppressed = suppressed_token_ids
        self._counts: dict[int, TokenCounts] = {}
        self._greens: GreenList | None = None

    def forget(self, seq_id: int) -> None:
        """Drop a sequence's counts."""
        self._counts.pop(seq_id, None)

    @contextlib.contextmanager
    def applied(
        self, seq_id: int, sequence: Sequence, logits: Logits, *, guided: bool
    ) -> Generator[Logits]:
        """A row after all but a grammar's mask; `logits` are as they were afterwards.

        Few tokens are named by a penalty or a bias: these are changed where they stand, and put
        back. `guided` is whether there is such a mask, which has dealt with `min_new_tokens`.
        """
        params = sequence.sampling
        row = logits
        if params.watermark is not None:
            row = self._marked(logits, sequence.token_ids[-1], params.watermark)
        before: list[tuple[npt.NDArray[np.int64], Logits]] = []

        def change(ids: npt.NDArray[np.int64], values: npt.NDArray[np.floating]) -> None:
            before.append((ids, row[ids]))
            row[ids] = values

        try:
            if params.logit_bias:
                ids, biases = biases_of(params, self._n_vocab)
                change(ids, row[ids] + biases)
            if penalizes(params):
                counts = self._counts_of(seq_id, sequence)
                counts.update()
                ids = counts.ids[: counts.size]
                change(ids, _penalized(row[ids], counts.times[: counts.size], params))
            masked = self._suppressed
            if not guided:
                masked = masked + end_token_ids_to_mask(sequence)
            if masked:
                change(np.array(masked), np.full(len(masked), -np.inf))
            yield row
        finally:
            for ids, values in reversed(before):
                row[ids] = values

    def _marked(self, logits: Logits, previous: int, mark: Watermark) -> Logits:
        if self._greens is None:
            self._greens = GreenList(self._n_vocab)
        # Adding nothing to the others is ten times as fast as picking out the green ones.
        marked = self._greens.after(previous, mark.gamma) * np.float32(mark.delta)
        marked += logits
        return marked

    def _counts_of(self, seq_id: int, sequence: Sequence) -> TokenCounts:
        counts = self._counts.get(seq_id)
        if counts is None or counts.sequence is not sequence:
            counts = self._counts[seq_id] = TokenCounts(sequence)
        return counts


def biases_of(
    params: SamplingParams, n_vocab: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Ids within the vocabulary, each once, and what is added to them."""
    known = {key: bias for key, bias in params.logit_bias.items() if 0 <= key < n_vocab}
    ids = np.fromiter(known.keys(), np.int64, len(known))
    return ids, np.fromiter(known.values(), np.float64, len(known))


def _penalized(
    seen: Logits, counts: npt.NDArray[np.float64], params: SamplingParams
) -> npt.NDArray[np.float64]:
    values = seen.astype(np.float64)
    penalty = params.repetition_penalty
    if penalty != 1.0:
        values = np.where(values > 0, values / penalty, values * penalty)
    if (params.frequency_penalty, params.presence_penalty) != (0.0, 0.0):
        values -= counts * params.frequency_penalty + (counts > 0) * params.presence_penalty
    return values


def needs_only_argmax(sequences: Items[Sequence]) -> bool:
    """Whether all of these are plain greedy: nothing to process, no logprobs, no grammar."""
    return all(
        sequence.sampling.greedy
        and sequence.request.top_logprobs is None
        and sequence.request.grammar is None
        and sequence.sampling.watermark is None
        and not sequence.sampling.logit_bias
        and not penalizes(sequence.sampling)
        and sequence.num_output_tokens >= sequence.stopping.min_new_tokens
        for sequence in sequences
    )
