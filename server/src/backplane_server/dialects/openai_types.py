"""What OpenAI's chat and text routes share in JSON: sampling fields, usage, logprobs."""

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

ChoiceT = TypeVar("ChoiceT")
Count = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]


class StreamOptions(msgspec.Struct, kw_only=True, frozen=True):
    """`include_usage` adds a last chunk with the counts; `continuous_usage_stats` has them in all.

    The second is an extension of other servers.
    """

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class StructuredOutputs(msgspec.Struct, kw_only=True, frozen=True):
    """What the text must obey, as newer clients of other servers say it: one field at most."""

    json: Any = None
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class SamplingFields(msgspec.Struct, kw_only=True, frozen=True):
    """Fields of both routes. From `top_k` on they are extensions other servers have too.

    `user` and its like are an account's affair, of which there are none here: whatever they say,
    the answer is the same.
    """

    model: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=1000)] | None = None
    top_p: Share | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: (
        Annotated[dict[int, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | None
    ) = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Any = None
    user: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Meta(ge=1e-6, le=1000)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    stop_token_ids: Annotated[list[int], Meta(max_length=256)] | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**32 - 1)] | None = None
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    chat_template: Any = None


class Reply(msgspec.Struct, Generic[ChoiceT], frozen=True, kw_only=True):
    """What every answer and every event of a stream begins with, after its `object`."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChoiceT]


class PromptTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Prompt tokens that were not computed again."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """New tokens that are the model's thoughts, where these are told apart."""

    reasoning_tokens: int


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | None = None


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """A token that could have been; `bytes` are exact where `token` is not whole characters."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """A chosen token with its logprob."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Alternative]


class ChatLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Logprobs of a message, token by token."""

    content: list[TokenLogprob]
    refusal: None = None


class TextLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Logprobs of a text completion, as parallel lists. A prompt's first token has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]
