"""`BatchSampler`: a step's rows of logits turned into tokens and logprobs, all rows at once.

Rows go together by what they ask, so that none pays for another's wishes. Knows nothing of models.
"""

import torch
from backplane_core.batching.executor import PromptScores, SampledTokens, ScheduledSequence
from backplane_core.batching.logit_rows import LogitRows, assign_logit_rows
from backplane_core.batching.sampling_needs import no_token
from backplane_core.errors import BackplaneError
from backplane_core.sampling import uniform

from backplane_torch.engine.sampling.candidates import UNSETTLED, Draw
from backplane_torch.engine.sampling.logits_processors import LogitsProcessors
from backplane_torch.engine.sampling.scores import score_tokens
from backplane_torch.engine.sampling.sequence_state import SequenceState
from backplane_torch.engine.sampling.token_choice import (
    NO_TOKEN,
    Looks,
    TokenChoice,
    highest_ids,
)
from backplane_torch.engine.sampling.token_table import TokenTable

Result = SampledTokens | BackplaneError | None


class BatchSampler:
    """For one executor; keeps what each sequence asks per `seq_id`, until `forget`."""

    def __init__(
        self,
        num_tokens: int,
        suppressed_token_ids: list[int],
        device: torch.device,
        *,
        looks: Looks | None = None,
        sum_dtype: torch.dtype = torch.float64,
    ) -> None:
        """Make the tables.

        Args:
            num_tokens: how many ids there are; logits may have more columns, which never come.
            suppressed_token_ids: never come, whatever a request asks.
            device: where logits are.
            looks: how many of a row's highest are looked at before all are.
            sum_dtype: in which a draw's probabilities are summed up. float32 is for devices that
                have nothing wider: a number so near to a boundary may then draw its neighbour.
        """
        self._num_tokens = num_tokens
        known = [token_id for token_id in suppressed_token_ids if 0 <= token_id < num_tokens]
        self._suppressed = torch.tensor(known, dtype=torch.int64, device=device)
        self._device = device
        self._looks = looks or Looks()
        self._sum_dtype = sum_dtype
        self._table = TokenTable(num_tokens, device)
        self._processors = LogitsProcessors(num_tokens, self._table, device)
        self._states: dict[int, SequenceState] = {}

    def forget(self, seq_id: int) -> None:
        """Drop what is kept of a sequence."""
        if (state := self._states.pop(seq_id, None)) is not None:
            state.close()

    def sample(
        self, sequences: list[ScheduledSequence], logits: torch.Tensor
    ) -> tuple[list[Result], dict[int, PromptScores]]:
        """Results in the order of `sequences`, and prompt scores by sequence id.

        Args:
            sequences: of one step.
            logits: a row per position that is to be scored or sampled, of any float type, in
                the order of `backplane_core.batching.logit_rows`; may be written to.
        """
        logits = logits[:, : self._num_tokens]
        rows = assign_logit_rows(sequences)
        scores = _prompt_scores(rows, logits)  # before anything is written
        if not rows.sampled:
            return [None] * len(sequences), scores
        if len(rows.sampled) < len(logits):
            logits = logits[self._index(rows.sampled)]
        states = [self._state_of(one) for one in sequences if one.sample]
        sampled = iter(self._results(states, logits))
        return [next(sampled) if one.sample else None for one in sequences], scores

    def _results(self, states: list[SequenceState], logits: torch.Tensor) -> list[Result]:
        """One per sequence and row."""
        asking = [row for row, state in enumerate(states) if state.num_top is not None]
        own = logits[self._index(asking)] if asking else None  # a copy
        if len(self._suppressed):
            logits.index_fill_(1, self._suppressed, -torch.inf)
        token_ids, failed = self._choose(states, logits)
        results: list[Result] = [
            no_token() if token_id == NO_TOKEN else SampledTokens([token_id])
            for token_id in token_ids
        ]
        if own is not None:
            targets = [max(0, token_ids[row]) for row in asking]
            num_top = [states[row].num_top or 0 for row in asking]
            scores = score_tokens(own, targets, num_top)
            for row, (logprob, top) in zip(asking, scores, strict=True):
                if token_ids[row] != NO_TOKEN:
                    results[row] = SampledTokens(
                        [token_ids[row]], [logprob], [top] if top else None
                    )
        for row, error in failed.items():
            results[row] = error
        return results

    def _choose(
        self, states: list[SequenceState], logits: torch.Tensor
    ) -> tuple[list[int], dict[int, BackplaneError]]:
        """The token of each row, or `NO_TOKEN`; and by row, why a grammar could not be followed."""
        plain = [row for row, state in enumerate(states) if state.plain]
        if len(plain) == len(states):
            return highest_ids(logits).tolist(), {}
        others = [row for row, state in enumerate(states) if not state.plain]
        steered = (logits[self._index(others)] if plain else logits).float()
        their = [states[row] for row in others]
        failed = self._processors.apply(steered, their)
        draws = [Draw(state.sequence.sampling, _number(state)) for state in their]
        choice = TokenChoice(steered, draws, self._looks, self._sum_dtype)
        chosen = choice.first()
        if plain:
            chosen = torch.cat([chosen, highest_ids(logits[self._index(plain)])])
        home = chosen.tolist()  # where the device is waited for
        unsettled = [place for place, token_id in enumerate(home) if token_id == UNSETTLED]
        if unsettled:
            for place, token_id in zip(unsettled, choice.settled(unsettled).tolist(), strict=True):
                home[place] = token_id
        by_row = dict(zip(others + plain, home, strict=True))
        token_ids = [by_row[row] for row in range(len(states))]
        return token_ids, {others[place]: error for place, error in failed.items()}

    def _state_of(self, scheduled: ScheduledSequence) -> SequenceState:
        seq_id, sequence = scheduled.seq_id, scheduled.sequence
        state = self._states.get(seq_id)
        if state is None or state.sequence is not sequence:
            self.forget(seq_id)
            state = self._states[seq_id] = SequenceState(sequence, self._table)
        return state

    def _index(self, rows: list[int]) -> torch.Tensor:
        return torch.tensor(rows).to(self._device, non_blocking=True)


def _number(state: SequenceState) -> float:
    sequence = state.sequence
    return 0.0 if state.greedy else uniform(sequence.seed, len(sequence.token_ids))


def _prompt_scores(rows: LogitRows, logits: torch.Tensor) -> dict[int, PromptScores]:
    """By sequence id."""
    scores: dict[int, PromptScores] = {}
    for scheduled, begin in rows.scored:
        token_ids = scheduled.scored_token_ids
        num_top = scheduled.sequence.request.prompt_logprobs or 0
        part = logits[begin : begin + len(token_ids)]
        scored = score_tokens(part, token_ids, [num_top] * len(token_ids))
        scores[scheduled.seq_id] = PromptScores(
            [logprob for logprob, _ in scored], [top for _, top in scored] if num_top else None
        )
    return scores
