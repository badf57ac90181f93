"""What OpenAI's chat and text routes share: sampling, ends, usage and logprobs."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from backplane_core.errors import ValidationError
from backplane_core.sampling import SamplingParams
from backplane_core.version import __version__

from backplane_server.dialects.openai_types import (
    Alternative,
    ChatLogprobs,
    SamplingFields,
    TokenLogprob,
    Usage,
)
from backplane_server.services.generation import Generation
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.text.choice_decoder import Finish, TokenOut
from backplane_server.text.detokenizer import TokenTable

FinishReason = Literal["stop", "length"]

FINGERPRINT: Final = f"{__version__}-native"
FINISH: Final[dict[Finish, FinishReason]] = {
    Finish.LENGTH: "length",
    Finish.EOS: "stop",
    Finish.STOP_TOKEN: "stop",
    Finish.STOP_STRING: "stop",
}
_NAMES: Final = {
    "num_sequences": "n",
    "min_new_tokens": "min_tokens",
}


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
    *,
    prompt: str | list[int],
    prompt_name: str,
    add_special: bool,
    max_new_tokens: int | None,
    max_new_tokens_name: str = "max_tokens",
    top_logprobs: int | None,
    logprobs_name: str,
) -> GenerationRequest:
    """Translate the shared fields. Temperature 0 is greedy, and so is `top_p` 0."""
    return GenerationRequest(
        prompt=prompt,
        add_special=add_special,
        sampling=_sampling(fields),
        seed=None if fields.seed is None else fields.seed % 2**64,
        max_new_tokens=max_new_tokens,
        min_new_tokens=fields.min_tokens or 0,
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        ignore_eos=bool(fields.ignore_eos),
        stops=(fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ()),
        keep_stop=False,
        top_logprobs=top_logprobs,
        num_sequences=fields.n or 1,
        names=_NAMES
        | {
            "prompt": prompt_name,
            "max_new_tokens": max_new_tokens_name,
            "top_logprobs": logprobs_name,
        },
    )


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
    )


def usage_of(generations: Sequence[Generation]) -> Usage:
    """Counts over all prompts and choices; a prompt counts once for all its choices."""
    num_prompt = sum(generation.num_prompt_tokens for generation in generations)
    num_new = sum(generation.num_new_tokens for generation in generations)
    return Usage(
        prompt_tokens=num_prompt, completion_tokens=num_new, total_tokens=num_prompt + num_new
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


def json_text(text: str) -> bytes:
    """A JSON string."""
    return msgspec.json.encode(text)
