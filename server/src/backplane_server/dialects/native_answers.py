"""TGI's whole answers: the text, and what `details` and `best_of` add to it."""

from dataclasses import dataclass, field
from typing import Final

from backplane_core.sampling import sequence_seed
from msgspec import UNSET

from backplane_server.dialects.native import NativePlan
from backplane_server.dialects.native_tokens import FINISH, token_of, top_tokens_of
from backplane_server.dialects.native_types import (
    BestOfSequence,
    Details,
    GenerateResponse,
    PrefillToken,
    Token,
)
from backplane_server.services.generation import Generation
from backplane_server.text.choice_decoder import ChoiceEvent, Finish


@dataclass(slots=True)
class _Gathered:
    """What `details` lists of one sequence, and what tells how good it is."""

    tokens: list[Token] = field(default_factory=list[Token])
    top_tokens: list[list[Token]] = field(default_factory=list[list[Token]])
    num_tokens: int = 0
    logprob_sum: float = 0.0

    @property
    def mean_logprob(self) -> float:
        """Of all its tokens, the end token among them."""
        return self.logprob_sum / max(1, self.num_tokens)


class NativeCollector:
    """Gathers what an answer needs while a generation runs."""

    def __init__(self, native: NativePlan, generation: Generation) -> None:
        self._plan: Final = native
        self._generation: Final = generation
        self._is_idle: Final = not native.details and len(generation.choices) == 1
        self._gathered: Final = [_Gathered() for _ in generation.choices]

    def add(self, prompt: int, event: ChoiceEvent) -> None:  # noqa: ARG002 - there is one prompt
        """Take news of a sequence."""
        if self._is_idle:
            return
        table = self._generation.model.table
        gathered = self._gathered[event.index]
        gathered.num_tokens += len(event.tokens)
        for token in event.tokens:
            gathered.logprob_sum += token.logprob or 0.0
            if self._plan.details:
                gathered.tokens.append(token_of(table, token))
                if self._plan.top_tokens:
                    gathered.top_tokens.append(top_tokens_of(table, token))

    def response(self) -> GenerateResponse:
        """The answer, once the generation has ended: the sequence of the best mean logprob."""
        indexes = range(len(self._gathered))
        best = max(indexes, key=lambda index: self._gathered[index].mean_logprob)
        self._generation.tell_only(best)
        text = self._plan.prefix + self._generation.choices[best].text
        if not self._plan.details:
            return GenerateResponse(generated_text=text)
        prefill = self._prefill()
        others = [self._other(index, prefill) for index in indexes if index != best]
        choice = self._generation.choices[best]
        return GenerateResponse(
            generated_text=text,
            details=Details(
                finish_reason=FINISH[choice.finish or Finish.LENGTH],
                generated_tokens=choice.num_tokens,
                seed=self._seed(best),
                prefill=prefill,
                tokens=self._gathered[best].tokens,
                best_of_sequences=others or UNSET,
                top_tokens=self._gathered[best].top_tokens or UNSET,
            ),
        )

    def _other(self, index: int, prefill: list[PrefillToken]) -> BestOfSequence:
        choice = self._generation.choices[index]
        return BestOfSequence(
            generated_text=self._plan.prefix + choice.text,
            finish_reason=FINISH[choice.finish or Finish.LENGTH],
            generated_tokens=choice.num_tokens,
            seed=self._seed(index),
            prefill=prefill,
            tokens=self._gathered[index].tokens,
            top_tokens=self._gathered[index].top_tokens or UNSET,
        )

    def _prefill(self) -> list[PrefillToken]:
        table = self._generation.model.table
        return [
            PrefillToken(token.token_id, table.literal(token.token_id), token.logprob)
            for token in self._generation.prompt_tokens
        ]

    def _seed(self, index: int) -> int | None:
        """The one that makes the same sequence when it is asked for alone."""
        seed = self._generation.seed
        return None if seed is None else sequence_seed(seed, index)
