"""TGI's native dialect: parameters to a `GenerationRequest`, events to answers and frames."""

from dataclasses import dataclass, replace
from typing import Final

import msgspec
from backplane_core.errors import ValidationError
from backplane_core.sampling import SamplingParams
from msgspec import UNSET

from backplane_server.dialects.native_types import (
    Details,
    FinishReason,
    GenerateParameters,
    GenerateResponse,
    StreamDetails,
    StreamResponse,
    Token,
)
from backplane_server.dialects.not_yet import refuse_not_yet
from backplane_server.errors import IncompleteGenerationError
from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.text.choice_decoder import ChoiceEvent, Finish, TokenOut
from backplane_server.text.detokenizer import TokenTable
from backplane_server.web.errors import Dialect
from backplane_server.web.event_stream import frame

_NAMES: Final = {"prompt": "inputs", "top_logprobs": "top_n_tokens"}
_FINISH: Final[dict[Finish, FinishReason]] = {
    Finish.LENGTH: "length",
    Finish.EOS: "eos_token",
    Finish.STOP_TOKEN: "eos_token",
    Finish.STOP_STRING: "stop_sequence",
}
# Parameters left out altogether sample; present but without `do_sample`, they do not.
_LEFT_OUT: Final = GenerateParameters(do_sample=True)


@dataclass(frozen=True)
class NativePlan:
    """A native request, understood.

    Attributes:
        details: whether the answer has `details`.
        top_tokens: whether it has the likeliest tokens too.
        prefix: what is put before the text: the prompt, or nothing.
    """

    generation: GenerationRequest
    details: bool
    top_tokens: bool
    prefix: str


def plan(
    inputs: str,
    parameters: GenerateParameters | None,
    *,
    stream: bool,
    full_text_default: bool = False,
) -> NativePlan:
    """Translate a request.

    Args:
        inputs: the prompt.
        parameters: as sent; None where they were left out.
        stream: whether the answer is a stream, which shows every token's logprob.
        full_text_default: what `return_full_text` is where it is left out.

    Raises:
        UnsupportedError: a parameter that this version does not have.
        ValidationError: a seed that is too large.
    """
    asked = parameters or _LEFT_OUT
    refuse_not_yet(
        {
            "best_of": asked.best_of,
            "watermark": asked.watermark,
            "grammar": asked.grammar,
            "decoder_input_details": asked.decoder_input_details,
            "adapter_id": asked.adapter_id,
        }
    )
    if asked.seed is not None and asked.seed >= 1 << 64:
        raise ValidationError("`seed` must be less than 2**64", parameter="seed")
    details = bool(asked.details)
    wants_logprobs = stream or details
    full_text = full_text_default if asked.return_full_text is None else asked.return_full_text
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return NativePlan(
        generation=GenerationRequest(
            prompt=inputs,
            add_special=True,
            sampling=_sampling(asked),
            seed=asked.seed,
            max_new_tokens=asked.max_new_tokens,
            stops=tuple(stops),
            keep_stop=True,
            top_logprobs=asked.top_n_tokens or 0 if wants_logprobs else None,
            implied_logprobs=not asked.top_n_tokens,
            truncate=asked.truncate,
            names=_NAMES,
        ),
        details=details,
        top_tokens=bool(asked.top_n_tokens) and wants_logprobs,
        prefix=inputs if full_text else "",
    )


def _sampling(asked: GenerateParameters) -> SamplingParams:
    narrows = (asked.temperature or 1.0) != 1.0 or any(
        value is not None for value in (asked.top_k, asked.top_p, asked.typical_p)
    )
    samples = asked.do_sample or narrows
    return SamplingParams(
        repetition_penalty=asked.repetition_penalty or 1.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        temperature=(asked.temperature or 1.0) if samples else 0.0,
        top_k=asked.top_k or 0 if samples else 0,
        top_p=asked.top_p or 1.0,
        typical_p=asked.typical_p or 1.0,
    )


class NativeCollector:
    """Gathers the tokens that `details` lists while a generation runs."""

    def __init__(self, native: NativePlan, generation: Generation) -> None:
        self._plan = native
        self._generation = generation
        self._tokens: list[Token] = []
        self._top_tokens: list[list[Token]] = []

    def add(self, event: ChoiceEvent) -> None:
        """Take news of the sequence."""
        if not self._plan.details:
            return
        table = self._generation.model.table
        for token in event.tokens:
            self._tokens.append(_token(table, token))
            if self._plan.top_tokens:
                self._top_tokens.append(_top_tokens(table, token))

    def response(self) -> GenerateResponse:
        """The answer, once the generation has ended."""
        choice = self._generation.choices[0]
        text = self._plan.prefix + choice.text
        if not self._plan.details:
            return GenerateResponse(generated_text=text)
        return GenerateResponse(
            generated_text=text,
            details=Details(
                finish_reason=_FINISH[choice.finish or Finish.LENGTH],
                generated_tokens=choice.num_tokens,
                seed=self._generation.seed,
                prefill=[],
                tokens=self._tokens,
                top_tokens=self._top_tokens or UNSET,
            ),
        )


class NativeStream:
    """Writes a native stream: one event a token, the last with the whole text."""

    dialect: Dialect = "native"

    def __init__(self, native: NativePlan, generation: Generation) -> None:
        self._plan = native
        self._generation = generation
        self._index = 0
        self._last: TokenOut | None = None

    def event(self, prompt: int, event: ChoiceEvent) -> bytes:  # noqa: ARG002 - there is one prompt
        """Frames for news of the sequence.

        Raises:
            IncompleteGenerationError: it ended before its first token.
        """
        tokens = event.tokens
        if event.finish is not None and not tokens:
            # A runner may tell the end after the last token, which had an event already. That
            # token comes once more: to hold each back until the next is there would cost every
            # stream a step.
            tokens = [self._repeated(event.tail)]
        last = len(tokens) - 1
        return b"".join(
            self._frame(token, event.finish if position == last else None)
            for position, token in enumerate(tokens)
        )

    def end(self) -> bytes:
        """Native streams have no end marker."""
        return b""

    def _repeated(self, text: str) -> TokenOut:
        if self._last is None:
            raise IncompleteGenerationError("the sequence ended before its first token")
        self._index -= 1
        return replace(self._last, text=text, silent=False)

    def _frame(self, token: TokenOut, finish: Finish | None) -> bytes:
        self._index += 1
        self._last = token
        table = self._generation.model.table
        choice = self._generation.choices[0]
        response = StreamResponse(
            index=self._index,
            token=_token(table, token),
            top_tokens=_top_tokens(table, token) if self._plan.top_tokens else UNSET,
            generated_text=None if finish is None else self._plan.prefix + choice.text,
            details=None if finish is None else self._details(_FINISH[finish]),
        )
        return frame(msgspec.json.encode(response))

    def _details(self, reason: FinishReason) -> StreamDetails | None:
        if not self._plan.details:
            return None
        return StreamDetails(
            finish_reason=reason,
            generated_tokens=self._generation.choices[0].num_tokens,
            seed=self._generation.seed,
            input_length=self._generation.num_prompt_tokens,
        )


def _token(table: TokenTable, token: TokenOut) -> Token:
    text = table.literal(token.token_id) if token.silent else token.text
    return Token(token.token_id, text, token.logprob, table.is_special(token.token_id))


def _top_tokens(table: TokenTable, token: TokenOut) -> list[Token]:
    return [
        Token(token_id, table.literal(token_id), logprob, table.is_special(token_id))
        for token_id, logprob in token.top_logprobs or []
    ]
