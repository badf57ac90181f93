"""What OpenAI's chat and text routes share: sampling, ends, usage and logprobs."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from backplane_core.errors import ValidationError
from backplane_core.messages import Grammar
from backplane_core.sampling import SamplingParams

from backplane_server.dialects.openai_types import (
    Alternative,
    ChatLogprobs,
    CompletionTokensDetails,
    PromptTokensDetails,
    SamplingFields,
    TokenLogprob,
    Usage,
)
from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.served_model import ServedModel
from backplane_server.text.choice_decoder import Finish, TokenOut
from backplane_server.text.detokenizer import TokenTable

FinishReason = Literal[
    "stop", "length", "tool_calls", "function_call", "stop_sequence", "eos_token"
]

FINISH: Final[dict[Finish, FinishReason]] = {
    Finish.LENGTH: "length",
    Finish.EOS: "stop",
    Finish.STOP_TOKEN: "stop",
    Finish.STOP_STRING: "stop",
}
# TGI names a stop string apart, and in the stream of a text completion the end token too.
STRICT_FINISH: Final[dict[Finish, FinishReason]] = {
    **FINISH,
    Finish.STOP_STRING: "stop_sequence",
}
STRICT_TEXT_STREAM_FINISH: Final[dict[Finish, FinishReason]] = {
    **STRICT_FINISH,
    Finish.EOS: "eos_token",
    Finish.STOP_TOKEN: "eos_token",
}
_NAMES: Final = {
    "num_sequences": "n",
    "min_new_tokens": "min_tokens",
    "max_new_tokens": "max_tokens",
    "adapter": "model",
    "truncate": "truncate_prompt_tokens",
}
_WHOLE_CONTEXT: Final = -1


def refuse_template(fields: SamplingFields) -> None:
    """A request may not bring its own template.

    Raises:
        ValidationError: it does.
    """
    if fields.chat_template is not None:
        raise ValidationError(
            "`chat_template` is not taken from requests",
            parameter="chat_template",
            remedy="the flag --chat-template sets it for the server",
        )


def generation_request(
    fields: SamplingFields,
    model: ServedModel,
    *,
    prompt: str | list[int],
    add_special: bool,
    max_new_tokens: int | None,
    top_logprobs: int | None,
    grammar: Grammar | None,
    keep_stop: bool,
    names: Mapping[str, str],
) -> GenerationRequest:
    """Translate the shared fields. Temperature 0 is greedy, and so is `top_p` 0.

    Args:
        fields: as sent.
        model: what is served; it tells the adapters' names and the limits.
        prompt: text or token ids.
        add_special: whether the tokenizer adds its special tokens, where the client does not say.
        max_new_tokens: None is the rest of the context.
        top_logprobs: None is no logprobs.
        grammar: what the text must obey.
        keep_stop: whether stop strings stay, also where the client does not ask for it.
        names: contract field → the route's name for it.

    Raises:
        ValidationError: a model's name that is nobody's, or a length of 0 to truncate to.
    """
    return GenerationRequest(
        prompt=prompt,
        add_special=(
            add_special if fields.add_special_tokens is None else fields.add_special_tokens
        ),
        sampling=_sampling(fields),
        seed=None if fields.seed is None else fields.seed % 2**64,
        max_new_tokens=max_new_tokens,
        min_new_tokens=fields.min_tokens or 0,
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        ignore_eos=bool(fields.ignore_eos),
        stops=(fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ()),
        keep_stop=keep_stop or bool(fields.include_stop_str_in_output),
        top_logprobs=top_logprobs,
        num_sequences=fields.n or 1,
        truncate=_truncate(fields.truncate_prompt_tokens, model),
        grammar=grammar,
        adapter=model.resolve(fields.model),
        show_special=fields.skip_special_tokens is False,
        names={**_NAMES, **names},
    )


def _truncate(asked: int | None, model: ServedModel) -> int | None:
    if asked == 0:
        raise ValidationError(
            "`truncate_prompt_tokens` must be at least 1, or -1 for as many as fit",
            parameter="truncate_prompt_tokens",
        )
    return model.info.limits.max_input_tokens if asked == _WHOLE_CONTEXT else asked


def _sampling(fields: SamplingFields) -> SamplingParams:
    temperature = 1.0 if fields.temperature is None else fields.temperature
    if fields.top_p == 0:
        temperature = 0.0  # the smallest set that reaches nothing is the likeliest token alone
    return SamplingParams(
        logit_bias=fields.logit_bias or {},
        repetition_penalty=fields.repetition_penalty or 1.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        presence_penalty=fields.presence_penalty or 0.0,
        temperature=temperature,
        top_k=max(0, fields.top_k or 0),
        top_p=fields.top_p or 1.0,
        min_p=fields.min_p or 0.0,
        typical_p=fields.typical_p or 1.0,
    )


def usage_of(generations: Sequence[Generation], *, num_reasoning: int | None = None) -> Usage:
    """Counts over all prompts and choices; a prompt counts once for all its choices.

    Args:
        generations: one a prompt.
        num_reasoning: new tokens that were thoughts; None where they are not told apart.
    """
    num_prompt = sum(generation.num_prompt_tokens for generation in generations)
    num_new = sum(generation.num_new_tokens for generation in generations)
    num_cached = sum(generation.times.num_cached_tokens for generation in generations)
    return Usage(
        prompt_tokens=num_prompt,
        completion_tokens=num_new,
        total_tokens=num_prompt + num_new,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=num_cached),
        completion_tokens_details=(
            None
            if num_reasoning is None
            else CompletionTokensDetails(reasoning_tokens=num_reasoning)
        ),
    )


def chat_logprobs(table: TokenTable, tokens: Sequence[TokenOut]) -> ChatLogprobs:
    """Logprobs of the visible tokens; the token that ended the text is not one of them."""
    return ChatLogprobs(
        content=[
            TokenLogprob(
                token=table.literal(token.token_id),
                logprob=token.logprob or 0.0,
                bytes=list(table.token_bytes(token.token_id)),
                top_logprobs=[
                    Alternative(
                        token=table.literal(token_id),
                        logprob=logprob,
                        bytes=list(table.token_bytes(token_id)),
                    )
                    for token_id, logprob in token.top_logprobs or []
                ],
            )
            for token in tokens
            if not token.silent
        ]
    )
