"""Draws tokens by numpy, where `native/sample.c` is not compiled.

What is of the whole vocabulary's width is `WideRow`'s, what is of few tokens `narrow_row`'s.
"""

import contextlib
import logging
from collections.abc import Generator

import numpy as np
import numpy.typing as npt
from backplane_core.batching.executor import SampledTokens, ScheduledSequence
from backplane_core.batching.sampling_needs import HOTTEST, no_token
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import BackplaneError, GenerationError
from backplane_core.sampling import SamplingParams, uniform

from backplane_llamacpp import narrow_row
from backplane_llamacpp.logits_processors import LogitsProcessors, needs_only_argmax
from backplane_llamacpp.narrow_row import Weights
from backplane_llamacpp.sampler import Logits, Mask, Result, Score, mask_of
from backplane_llamacpp.wide_row import Floats, Ids, WideRow, descending, first_beyond

_log = logging.getLogger(__name__)

# Up to so many tokens are handled apart from the rest of the vocabulary.
_MAX_NARROW = 4096


class NumpySampler:
    """Samples one row at a time, in buffers that it reuses."""

    def __init__(
        self, n_vocab: int, suppressed_token_ids: list[int], *, max_narrow: int = _MAX_NARROW
    ) -> None:
        self._n_vocab = n_vocab
        self._max_narrow = max_narrow
        self._all_ids: Ids = np.arange(n_vocab)
        self._suppressed = suppressed_token_ids
        self._processors = LogitsProcessors(n_vocab, suppressed_token_ids)
        self._row = WideRow(n_vocab)

    def forget(self, seq_id: int) -> None:
        """Drop a sequence's penalty counts."""
        self._processors.forget(seq_id)

    def tokens(
        self, wanted: list[ScheduledSequence], logits: Logits, places: list[int]
    ) -> list[Result]:
        """See `Sampler`."""
        plain = needs_only_argmax([scheduled.sequence for scheduled in wanted])
        if plain and (token_ids := self._argmax(logits, places)):
            return [SampledTokens([token_id]) for token_id in token_ids]
        # Guided ones last: until their turn comes, their masks are being made.
        order = sorted(range(len(wanted)), key=lambda one: wanted[one].sequence.guide is not None)
        with np.errstate(over="ignore"):  # far below the highest is far below, however far
            results = {one: self._token(wanted[one], logits[places[one]]) for one in order}
        return [results[one] for one in range(len(wanted))]

    def scores(self, logits: Logits, token_ids: list[int], num_top: int) -> list[Score]:
        """See `Sampler`."""
        with np.errstate(over="ignore"):
            pairs = zip(logits, token_ids, strict=True)
            return [self.logprobs(row, token_id, num_top) for row, token_id in pairs]

    def _token(self, scheduled: ScheduledSequence, logits: Logits) -> Result:
        sequence = scheduled.sequence
        try:
            token_id = self.sample(scheduled.seq_id, sequence, logits, mask_of(sequence))
        except BackplaneError as error:
            return error
        except (ArithmeticError, LookupError, ValueError) as error:
            # One request's numbers must not take everybody's engine down.
            _log.exception("sampling failed for %s", sequence.request.request_id)
            return GenerationError(f"the token could not be sampled: {type(error).__name__}")
        num_top = sequence.request.top_logprobs
        if num_top is None:
            return SampledTokens([token_id])
        logprob, top = self.logprobs(logits, token_id, num_top)
        return SampledTokens([token_id], [logprob], [top] if num_top else None)

    def _argmax(self, logits: Logits, places: list[int]) -> list[int]:
        """The highest of each row; none where one of them has none."""
        if self._suppressed:
            logits[np.ix_(places, self._suppressed)] = -np.inf
        token_ids = [int(logits[row].argmax()) for row in places]
        finite = np.isfinite(logits[places, token_ids]).all()
        return token_ids if finite else []

    def sample(
        self, seq_id: int, sequence: Sequence, logits: Logits, mask: Mask | None = None
    ) -> int:
        """The token after `sequence.token_ids`.

        Args:
            seq_id: what the sequence's counts are kept under.
            sequence: its parameters and tokens.
            logits: one row, of the whole vocabulary; changed meanwhile, not afterwards.
            mask: which tokens a grammar lets come; None is no grammar.

        Raises:
            GenerationError: no token is possible, or the model's logits are not numbers.
        """
        if sequence.sampling.greedy:
            with self._steered(seq_id, sequence, logits, mask) as (row, ids):
                return _highest_of(row, ids)
        ids, weights = self.candidates(seq_id, sequence, logits, mask)
        number = uniform(sequence.seed, len(sequence.token_ids))
        return self._row.index_at(number) if ids is None else int(ids[_index_at(weights, number)])

    def candidates(
        self, seq_id: int, sequence: Sequence, logits: Logits, mask: Mask | None = None
    ) -> tuple[Ids | None, Weights | Floats]:
        """What masks, temperature and truncations leave; the temperature is not 0.

        Returns:
            Ascending ids and their weights. None is all ids: those that were cut weigh 0.

        Raises:
            GenerationError: no token is possible, or the model's logits are not numbers.
        """
        params = sequence.sampling
        temperature = min(params.temperature, HOTTEST)
        with self._steered(seq_id, sequence, logits, mask) as (row, few):
            ids = few
            if ids is None:
                highest = self._row.highest(row)
                _check(highest)
                if not 0 < params.top_k < self._n_vocab:
                    return self._wide(row, highest, params, temperature)
                ids = np.sort(self._row.top(row, params.top_k))
            scores = row[ids]
            _check(float(scores.max(initial=-np.inf)))
            if 0 < params.top_k < len(ids):
                ids = np.sort(ids[descending(scores)[: params.top_k]])
                scores = row[ids]
            return narrow_row.cut(ids, narrow_row.weights_of(scores, temperature), params)

    @contextlib.contextmanager
    def _steered(
        self, seq_id: int, sequence: Sequence, logits: Logits, mask: Mask | None
    ) -> Generator[tuple[Logits, Ids | None]]:
        """The row as its processors leave it, and which ids of it count; None is all."""
        ids = self._all_ids if self._n_vocab <= self._max_narrow else None
        with self._processors.applied(seq_id, sequence, logits, guided=mask is not None) as row:
            if mask is None:
                yield row, ids
            elif (few := self._few_allowed(mask)) is not None:
                yield row, few
            else:
                yield self._row.masked(row, self._forbidden(mask)), None

    def _wide(
        self, logits: Logits, highest: float, params: SamplingParams, temperature: float
    ) -> tuple[Ids | None, Weights | Floats]:
        """All cuts but `top_k`, of a whole row."""
        row = self._row
        total = row.weigh(logits, highest, temperature)
        if params.top_p < 1.0:
            mass = params.top_p * total
            ids = row.heaviest(logits, total)
            weights = row.weights[ids].astype(np.float64)
            if weights.sum() >= mass:
                return narrow_row.cut(ids, weights, params, total=total)
            row.keep_highest(mass, total, ids)
        if params.min_p > 0.0:
            row.keep_from(params.min_p)
        if params.typical_p < 1.0:
            row.keep_typical(params.typical_p)
        return None, row.weights

    def _few_allowed(self, mask: Mask) -> Ids | None:
        """The ids a grammar lets come, ascending; None where they are many."""
        filled = np.flatnonzero(mask)
        if len(filled) > self._max_narrow // 8:
            return None
        bits = np.unpackbits(mask[filled], bitorder="little")
        ids = (filled[:, np.newaxis] * 8 + np.arange(8)).ravel()[bits.view(np.bool_)]
        return ids[: np.searchsorted(ids, self._n_vocab)]

    def _forbidden(self, mask: Mask) -> npt.NDArray[np.bool_]:
        bits = np.unpackbits(mask, count=self._n_vocab, bitorder="little")
        return np.equal(bits, 0, out=bits.view(np.bool_))

    def logprobs(self, logits: Logits, token_id: int, num_top: int) -> Score:
        """Log-probability of a token, and the `num_top` highest, from the model's own logits."""
        normalizer = self._row.log_sum(logits)
        top: list[tuple[int, float]] = []
        if num_top > 0:
            ids = self._row.top(logits, num_top)
            top = [(int(top_id), float(logits[top_id]) - normalizer) for top_id in ids]
        return float(logits[token_id]) - normalizer, top


def _highest_of(row: Logits, ids: Ids | None) -> int:
    if ids is not None and not len(ids):
        _check(-np.inf)
    token_id = int(row.argmax()) if ids is None else int(ids[row[ids].argmax()])
    _check(float(row[token_id]))
    return token_id


def _check(highest: float) -> None:
    if not np.isfinite(highest):
        raise no_token()


def _index_at(weights: Weights | Floats, number: float) -> int:
    """The first index at which the cumulative share of the weights exceeds `number`."""
    cumulative = np.cumsum(weights, dtype=np.float64)
    return first_beyond(cumulative, number * float(cumulative[-1]))
