"""The batch's sampler, asked for one row at a time, as the rules for every backend's ask."""

from unittest import mock

import torch
from backplane_core.batching.executor import SampledTokens, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import GenerationError
from backplane_torch.engine.sampling import truncation
from backplane_torch.engine.sampling.batch_sampler import BatchSampler
from backplane_torch.engine.sampling.candidates import Candidates
from backplane_torch.engine.sampling.scores import score_tokens
from backplane_torch.engine.sampling.token_choice import Looks

from tests.sampling.rows import Logits, Mask, Score, assert_shares, guided

CPU = torch.device("cpu")
# "digits" takes the ways of wide rows on the smallest ones, too; "looks" looks at too few at first.
KINDS = ("few", "digits", "looks", "float32")


def share(seq_id: int, one: Sequence) -> ScheduledSequence:
    """The sequence's next decode."""
    return ScheduledSequence(
        seq_id=seq_id,
        sequence=one,
        start=len(one.token_ids) - 1,
        token_ids=one.token_ids[-1:],
        sample=True,
    )


class TorchRow:
    def __init__(self, kind: str, n_vocab: int, suppressed: tuple[int, ...] = ()) -> None:
        self._sorted_width = 0 if kind == "digits" else truncation._SORTED_WIDTH
        self._sampler = BatchSampler(
            n_vocab,
            list(suppressed),
            CPU,
            looks=Looks(first=3, most=2) if kind == "looks" else Looks(),
            sum_dtype=torch.float32 if kind == "float32" else torch.float64,
        )

    def sample(self, seq_id: int, one: Sequence, logits: Logits, mask: Mask | None = None) -> int:
        rows = torch.tensor(logits).unsqueeze(0)
        with mock.patch.object(truncation, "_SORTED_WIDTH", self._sorted_width):
            (result,), _ = self._sampler.sample([share(seq_id, guided(one, mask))], rows)
        if not isinstance(result, SampledTokens):
            assert isinstance(result, GenerationError)
            raise result
        return result.token_ids[0]

    def kept(self, one: Sequence, logits: Logits, mask: Mask | None) -> dict[int, float]:
        """Token id → probability, of all that may be drawn, ascending."""
        asked: list[Candidates] = []
        draw = Candidates.token_ids_at

        def ask(candidates: Candidates, numbers: torch.Tensor) -> torch.Tensor:
            asked.append(candidates)
            return draw(candidates, numbers)

        with mock.patch.object(Candidates, "token_ids_at", ask):
            self.sample(0, one, logits, mask)
        weights = asked[-1].weights[0].double()
        parts = (weights / weights.sum()).tolist()
        ids = range(len(parts)) if asked[-1].ids is None else asked[-1].ids[0].tolist()
        return {token_id: part for token_id, part in zip(ids, parts, strict=True) if part > 0}

    def logprobs(self, logits: Logits, token_id: int, num_top: int) -> Score:
        return score_tokens(torch.tensor(logits).unsqueeze(0), [token_id], [num_top])[0]


def assert_kept(
    sampler: TorchRow,
    one: Sequence,
    logits: Logits,
    expected: dict[int, float],
    mask: Mask | None = None,
    *,
    least: float = 1e-30,
    near: float = 1e-6,
) -> None:
    """That these tokens, and no others, are drawn with these probabilities."""
    assert_shares(sampler.kept(one, logits, mask), expected, least=least, near=near)
