"""Numpy's sampler and the compiled one behind one interface, and what is asked of both."""

import functools
import shutil

import numpy as np
import pytest
from backplane_core.batching.executor import SampledTokens, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import GenerationError
from backplane_llamacpp.compiled_sampler import CompiledSampler, SequenceRow
from backplane_llamacpp.narrow_row import Weights
from backplane_llamacpp.native import rows
from backplane_llamacpp.native.rows import RowSampler
from backplane_llamacpp.numpy_sampler import NumpySampler
from backplane_llamacpp.sampler import Logits, Mask, Score
from backplane_llamacpp.wide_row import Ids

from tests.sampling.rows import assert_shares, guided

LIBRARY = rows.load()
compiled = pytest.mark.skipif(
    LIBRARY is None and shutil.which("cc") is None, reason="there is no C compiler for sample.c"
)


class Compiled:
    """`NumpySampler`'s interface over the compiled one, a row at a time."""

    def __init__(self, n_vocab: int, suppressed: list[int]) -> None:
        assert LIBRARY is not None
        self._n_vocab, self._suppressed = n_vocab, suppressed
        self._sampler = CompiledSampler(LIBRARY, n_vocab, suppressed, 1)
        self._rows = RowSampler(LIBRARY, n_vocab, 1)

    def sample(self, seq_id: int, one: Sequence, logits: Logits, mask: Mask | None = None) -> int:
        one = guided(one, mask)
        share = ScheduledSequence(seq_id=seq_id, sequence=one, start=0, token_ids=[0], sample=True)
        (result,) = self._sampler.tokens([share], logits[np.newaxis], [0])
        if not isinstance(result, SampledTokens):
            assert isinstance(result, GenerationError)
            raise result
        return result.token_ids[0]

    def drawn_at(self, one: Sequence, logits: Logits, mask: Mask | None, number: float) -> int:
        """What a draw by that number gives."""
        row = SequenceRow(guided(one, mask), self._n_vocab, self._suppressed)
        row.prepare(logits.ctypes.data, [])
        row.wait_for_mask()
        row.task.number = number
        self._rows.run([row.address])
        result = row.result()
        assert isinstance(result, SampledTokens)
        return result.token_ids[0]

    def logprobs(self, logits: Logits, token_id: int, num_top: int) -> Score:
        return self._sampler.scores(logits[np.newaxis], [token_id], num_top)[0]


AnySampler = NumpySampler | Compiled


@functools.cache
def sampler_for(n_vocab: int, kind: str, suppressed: tuple[int, ...] = ()) -> AnySampler:
    """ "wide": what is of a whole vocabulary's width is tried on the smallest ones, too."""
    if kind == "compiled":
        return Compiled(n_vocab, list(suppressed))
    changes = {"max_narrow": 0} if kind == "wide" else {}
    return NumpySampler(n_vocab, list(suppressed), **changes)


def assert_kept(
    sampler: AnySampler,
    one: Sequence,
    logits: Logits,
    expected: dict[int, float],
    mask: Mask | None = None,
    *,
    least: float = 1e-30,  # float32 has no room for less
    near: float = 1e-6,
) -> None:
    """That these tokens, and no others, are drawn with these probabilities."""
    if isinstance(sampler, NumpySampler):
        kept = shares(sampler.candidates(0, one, logits, mask))
        assert_shares(kept, expected, least=least, near=near)
        return
    # Where one token's share ends the next one's begins.
    below = 0.0
    for token_id, part in expected.items():
        for place in (below + 2 * near, below + part / 2, below + part - 2 * near):
            if below + near < place < below + part - near:
                assert sampler.drawn_at(one, logits, mask, place) == token_id
        below += part


def shares(candidates: tuple[Ids | None, Weights]) -> dict[int, float]:
    """Token id → probability, of what is neither cut nor rounded to nothing."""
    ids, weights = candidates
    parts = (weights / weights.sum(dtype=np.float64)).tolist()
    pairs = enumerate(parts) if ids is None else zip(ids.tolist(), parts, strict=True)
    return {token_id: part for token_id, part in pairs if part > 0}


KINDS = ("narrow", "wide", "compiled")
each_kind = [pytest.param(kind, marks=compiled if kind == "compiled" else ()) for kind in KINDS]
