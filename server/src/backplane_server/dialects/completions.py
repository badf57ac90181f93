"""`/v1/completions`: prompts to `GenerationRequest`s, events to answers and frames."""

from collections.abc import Sequence

import msgspec
from backplane_core.errors import ValidationError

from backplane_server.dialects.completions_types import (
    TEXT_COMPLETION,
    Completion,
    CompletionChoice,
    CompletionRequest,
)
from backplane_server.dialects.not_yet import refuse_not_yet
from backplane_server.dialects.openai import (
    FINGERPRINT,
    FINISH,
    generation_request,
    json_text,
    refuse_template,
    usage_of,
)
from backplane_server.dialects.openai_replies import ReplyHead, ReplyStream, TokensByChoice
from backplane_server.dialects.openai_types import TextLogprobs
from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.text.choice_decoder import ChoiceEvent, Finish, TokenOut
from backplane_server.text.detokenizer import TokenTable


def plan(body: CompletionRequest, max_client_batch_size: int) -> list[GenerationRequest]:
    """Translate a request: one generation a prompt.

    Raises:
        ValidationError: too many prompts, texts and token ids mixed, or `logprobs: true`.
        UnsupportedError: a parameter that this version does not have.
    """
    refuse_template(body)
    if body.logprobs is True:
        raise ValidationError(
            "`logprobs` must be how many alternatives to a token to tell, not true",
            parameter="logprobs",
            remedy="send 0 for the logprobs of the chosen tokens alone",
        )
    # The best n of n are all of them.
    best_of = body.best_of if (body.best_of or 1) > (body.n or 1) else None
    refuse_not_yet({"suffix": body.suffix, "echo": body.echo, "best_of": best_of})
    prompts = _prompts(body.prompt)
    if len(prompts) > max_client_batch_size:
        raise ValidationError(
            f"`prompt` may hold at most {max_client_batch_size} prompts, not {len(prompts)}",
            parameter="prompt",
            remedy="the flag --max-client-batch-size sets the limit",
        )
    return [
        generation_request(
            body,
            prompt=prompt,
            prompt_name="prompt",
            add_special=True,
            max_new_tokens=body.max_tokens,
            top_logprobs=body.num_logprobs,
            logprobs_name="logprobs",
        )
        for prompt in prompts
    ]


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    token_ids = [item for item in prompt if isinstance(item, int)]
    if len(token_ids) == len(prompt):
        return [token_ids]
    if token_ids:
        raise ValidationError(
            "`prompt` mixes token ids with texts or lists; send one kind", parameter="prompt"
        )
    return [item for item in prompt if not isinstance(item, int)]


def text_logprobs(
    table: TokenTable, tokens: Sequence[TokenOut], start: int, *, top: int
) -> TextLogprobs:
    """Logprobs as parallel lists; `start` is where the first token's text begins."""
    offsets: list[int] = []
    shown = [token for token in tokens if not token.silent]
    for token in shown:
        offsets.append(start)
        start += len(token.text)
    alternatives = [
        {table.literal(token_id): logprob for token_id, logprob in token.top_logprobs or []}
        for token in shown
    ]
    return TextLogprobs(
        tokens=[table.literal(token.token_id) for token in shown],
        token_logprobs=[token.logprob or 0.0 for token in shown],
        top_logprobs=alternatives if top else None,
        text_offset=offsets,
    )


def completion(
    head: ReplyHead,
    generations: Sequence[Generation],
    tokens: TokensByChoice,
    logprobs: int | None,
) -> Completion:
    """The answer, once every sequence has ended. Choices stand in index order.

    Args:
        head: the reply's.
        generations: one a prompt.
        tokens: those whose logprobs are wanted.
        logprobs: how many alternatives a token; None for no logprobs.
    """
    return Completion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=FINGERPRINT,
        choices=[
            CompletionChoice(
                index=prompt * len(generation.choices) + choice.index,
                text=choice.text,
                logprobs=(
                    None
                    if logprobs is None
                    else text_logprobs(
                        generation.model.table,
                        tokens.get((prompt, choice.index), []),
                        0,
                        top=logprobs,
                    )
                ),
                finish_reason=FINISH[choice.finish or Finish.LENGTH],
            )
            for prompt, generation in enumerate(generations)
            for choice in generation.choices
        ],
        usage=usage_of(generations),
    )


class CompletionStream(ReplyStream):
    """Writes a text stream; the events of several prompts interleave by index."""

    def __init__(
        self,
        head: ReplyHead,
        generations: Sequence[Generation],
        *,
        logprobs: int | None,
        include_usage: bool,
    ) -> None:
        super().__init__(TEXT_COMPLETION, head, generations, include_usage=include_usage)
        self._logprobs = logprobs
        self._num_choices = len(generations[0].choices)
        self._table = generations[0].model.table
        self._offsets: dict[int, int] = {}

    def event(self, prompt: int, event: ChoiceEvent) -> bytes:
        """Frames for news of a sequence."""
        index = prompt * self._num_choices + event.index
        frames = [
            self._frame(index, token.text, self._logprobs_of(index, token), b"null")
            for token in event.tokens
            if token.text or (self._logprobs is not None and not token.silent)
        ]
        if event.finish is not None:
            reason = json_text(FINISH[event.finish])
            frames.append(self._frame(index, event.tail, b"null", reason))
        return b"".join(frames)

    def _frame(self, index: int, text: str, logprobs: bytes, reason: bytes) -> bytes:
        return b"".join(
            (
                self._head,
                b'{"index":%d,"text":' % index,
                json_text(text),
                b',"logprobs":',
                logprobs,
                b',"finish_reason":',
                reason,
                b'}],"usage":null}\n\n',
            )
        )

    def _logprobs_of(self, index: int, token: TokenOut) -> bytes:
        if self._logprobs is None or token.silent:
            return b"null"
        start = self._offsets.get(index, 0)
        self._offsets[index] = start + len(token.text)
        return msgspec.json.encode(text_logprobs(self._table, [token], start, top=self._logprobs))
