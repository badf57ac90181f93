"""`/v1/completions`: prompts to `GenerationRequest`s, and finished generations to an answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from backplane_core.control import ServerLaunch
from backplane_core.errors import ValidationError

from backplane_server.dialects.completions_types import (
    Completion,
    CompletionChoice,
    CompletionRequest,
)
from backplane_server.dialects.constraints import constraint_of
from backplane_server.dialects.openai import (
    FINISH,
    STRICT_FINISH,
    generation_request,
    refuse_template,
    usage_of,
)
from backplane_server.dialects.openai_replies import ReplyHead, TokensByChoice
from backplane_server.dialects.openai_types import TextLogprobs
from backplane_server.dialects.text_logprobs import Echo, prompt_tokens, text_logprobs
from backplane_server.errors import CompletionFormError
from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.served_model import ServedModel
from backplane_server.text.choice_decoder import Finish, TokenOut

_NO_LOGPROB: Final = float("-inf")


@dataclass(frozen=True)
class CompletionPlan:
    """A request, understood.

    Attributes:
        requests: one a prompt.
        num_choices: how many continuations of each are told: the best, where there are more.
        echo: whether each begins with its prompt.
        logprobs: how many alternatives a token; None for no logprobs.
        scores_only: nothing is to be generated. A worker makes a token all the same, which is
            neither shown nor counted.
    """

    requests: list[GenerationRequest]
    num_choices: int
    echo: bool
    logprobs: int | None
    scores_only: bool

    @property
    def ranks(self) -> bool:
        """Whether the best of several continuations are told."""
        return self.requests[0].num_sequences > self.num_choices

    @property
    def needs_tokens(self) -> bool:
        """Whether the answer is made from more than texts."""
        return self.logprobs is not None or self.ranks


def plan(body: CompletionRequest, model: ServedModel, settings: ServerLaunch) -> CompletionPlan:
    """Translate a request: one generation a prompt.

    Raises:
        ValidationError: too many prompts, texts and token ids mixed, values that contradict each
            other.
    """
    refuse_template(body)
    if body.suffix is not None and body.suffix != "":
        raise CompletionFormError(
            "`suffix` is not supported: no model is asked to fill a gap here",
            parameter="suffix",
            remedy="put the model's own marks for filling in into `prompt`",
        )
    _check_logprobs(body)
    num_choices, best_of = _choices(body, settings.max_best_of)
    prompts = _prompts(body.prompt)
    if len(prompts) > settings.max_client_batch_size:
        raise CompletionFormError(
            f"`prompt` may hold at most {settings.max_client_batch_size} prompts, not "
            f"{len(prompts)}",
            parameter="prompt",
            remedy="the flag --max-client-batch-size sets the limit",
        )
    constraint, grammar = constraint_of(body) or ("grammar", None)
    scores_only = body.max_tokens == 0
    ranks = best_of > num_choices
    logprobs = body.num_logprobs
    common = generation_request(
        body,
        model,
        prompt="",
        add_special=True,
        max_new_tokens=1 if scores_only else body.max_tokens,
        # The best are known by their logprobs.
        top_logprobs=0 if ranks and logprobs is None else logprobs,
        grammar=grammar,
        keep_stop=settings.tgi_strict,
        names={
            "top_logprobs": "logprobs",
            "prompt_logprobs": "echo",
            "grammar": constraint,
            "logprobs": "logprobs" if logprobs is not None else "best_of",
            "num_sequences": "best_of" if ranks else "n",
        },
    )
    common = replace(common, num_sequences=best_of, prompt_logprobs=logprobs if body.echo else None)
    return CompletionPlan(
        requests=[replace(common, prompt=prompt) for prompt in prompts],
        num_choices=num_choices,
        echo=bool(body.echo),
        logprobs=logprobs,
        scores_only=scores_only,
    )


def _check_logprobs(body: CompletionRequest) -> None:
    if body.logprobs is True:
        raise ValidationError(
            "`logprobs` must be how many alternatives to a token to tell, not true",
            parameter="logprobs",
            remedy="send 0 for the logprobs of the chosen tokens alone",
        )
    if body.max_tokens == 0 and not body.echo:
        raise ValidationError(
            "`max_tokens` must be at least 1; 0 has a meaning with `echo` alone",
            parameter="max_tokens",
        )


def _choices(body: CompletionRequest, max_best_of: int) -> tuple[int, int]:
    """How many continuations are told, and how many are made."""
    num_choices = body.n or 1
    best_of = body.best_of or num_choices
    if best_of < num_choices:
        raise ValidationError(
            f"`best_of` of {best_of} is less than `n` of {num_choices}", parameter="best_of"
        )
    if best_of == num_choices:
        return num_choices, best_of
    if body.stream:
        raise ValidationError(
            "`best_of` above `n` cannot be streamed: the best are known at the end",
            parameter="best_of",
        )
    if best_of > max_best_of:
        raise ValidationError(
            f"`best_of` must be at most {max_best_of}, not {best_of}",
            parameter="best_of",
            remedy="the flag --max-best-of sets the limit",
        )
    return num_choices, best_of


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


def completion(
    head: ReplyHead,
    asked: CompletionPlan,
    generations: Sequence[Generation],
    echoes: Sequence[Echo],
    tokens: TokensByChoice,
) -> Completion:
    """The answer, once every sequence has ended. Choices stand in index order.

    Args:
        head: the reply's.
        asked: the request.
        generations: one a prompt.
        echoes: likewise, where prompts are echoed.
        tokens: those of every sequence.
    """
    return Completion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.system_fingerprint,
        choices=[
            _choice(
                head,
                asked,
                generation,
                echoes[prompt] if asked.echo else None,
                tokens.get((prompt, choice), []),
                index=prompt * asked.num_choices + rank,
                choice=choice,
            )
            for prompt, generation in enumerate(generations)
            for rank, choice in enumerate(_told(asked, generation, tokens, prompt))
        ],
        usage=usage_of(generations),
    )


def _told(
    asked: CompletionPlan, generation: Generation, tokens: TokensByChoice, prompt: int
) -> list[int]:
    """The numbers of the sequences that are told: of more than that those likeliest by token."""
    numbers = [choice.index for choice in generation.choices]
    if not asked.ranks:
        return numbers
    means = {number: _mean_logprob(tokens.get((prompt, number), [])) for number in numbers}
    return sorted(numbers, key=lambda number: -means[number])[: asked.num_choices]


def _mean_logprob(tokens: Sequence[TokenOut]) -> float:
    logprobs = [token.logprob for token in tokens if token.logprob is not None]
    return sum(logprobs) / len(logprobs) if logprobs else _NO_LOGPROB


def _choice(
    head: ReplyHead,
    asked: CompletionPlan,
    generation: Generation,
    echo: Echo | None,
    tokens: Sequence[TokenOut],
    *,
    index: int,
    choice: int,
) -> CompletionChoice:
    decoder = generation.choices[choice]
    names = STRICT_FINISH if head.strict else FINISH
    text = "" if asked.scores_only else decoder.text
    return CompletionChoice(
        index=index,
        text=text if echo is None else echo.text + text,
        logprobs=None if asked.logprobs is None else _logprobs(asked, generation, echo, tokens),
        finish_reason="length" if asked.scores_only else names[decoder.finish or Finish.LENGTH],
    )


def _logprobs(
    asked: CompletionPlan, generation: Generation, echo: Echo | None, tokens: Sequence[TokenOut]
) -> TextLogprobs:
    shown = [] if echo is None else prompt_tokens(generation, echo)
    if not asked.scores_only:
        shown += tokens
    table, top = generation.model.table, asked.logprobs or 0
    return text_logprobs(table, shown, 0, top=top)
