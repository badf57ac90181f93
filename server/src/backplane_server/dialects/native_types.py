"""TGI's native JSON: field names, order and defaults are the contract's (docs/server.md)."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

# The types alone, as TGI's: what a value may be is looked at in order, in `native_checks`.
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Meta(ge=0)]  # below 2**64, which a bound here cannot say
# Told in the schema, and no more.
_ABOVE_0: Final[dict[str, Any]] = {"exclusiveMinimum": 0}
Positive = Annotated[float, Meta(extra_json_schema=_ABOVE_0)]
Penalty = Annotated[float, Meta(extra_json_schema={"minimum": -2, "maximum": 2})]
Share = Annotated[float, Meta(extra_json_schema={**_ABOVE_0, "maximum": 1})]
PartialShare = Annotated[float, Meta(extra_json_schema={**_ABOVE_0, "exclusiveMaximum": 1})]
TopK = Annotated[int, Meta(le=2**31 - 1, extra_json_schema={"minimum": 1})]
Count = Annotated[int, Meta(le=2**32 - 1, extra_json_schema={"minimum": 1})]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]

FinishReason = Literal["length", "eos_token", "stop_sequence"]


class GrammarForm(msgspec.Struct, kw_only=True, frozen=True):
    """What the text must obey: a JSON schema (an object, or one in a string), or a regex."""

    type: Literal["json", "json_object", "json_schema", "regex"]
    value: Any


class GenerateParameters(msgspec.Struct, kw_only=True, frozen=True):
    """How to generate. Everything may be left out or null."""

    best_of: U32 | None = None
    temperature: Positive | None = None
    repetition_penalty: Positive | None = None
    frequency_penalty: Penalty | None = None
    top_k: TopK | None = None
    top_p: Share | None = None
    typical_p: PartialShare | None = None
    do_sample: bool | None = None
    max_new_tokens: Count | None = None
    return_full_text: bool | None = None
    stop: str | list[str] | None = None
    truncate: Count | None = None
    watermark: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    seed: U64 | None = None
    top_n_tokens: U32 | None = None
    grammar: GrammarForm | None = None
    adapter_id: str | None = None


class GenerateRequest(msgspec.Struct, kw_only=True, frozen=True):
    """Body of `/generate`, `/generate_stream` and `/tokenize`."""

    inputs: str
    parameters: GenerateParameters | None = None
    add_special_tokens: bool | None = None


class CompatGenerateRequest(msgspec.Struct, kw_only=True, frozen=True):
    """Body of `POST /`."""

    inputs: str
    parameters: GenerateParameters | None = None
    stream: bool | None = None
    add_special_tokens: bool | None = None


class Token(msgspec.Struct, frozen=True):
    """A generated token; `text` is its share of the text, a special token's literal."""

    id: int
    text: str
    logprob: float | None
    special: bool


class PrefillToken(msgspec.Struct, frozen=True):
    """A token of the prompt; the first one's logprob is null."""

    id: int
    text: str
    logprob: float | None


class BestOfSequence(msgspec.Struct, frozen=True, kw_only=True):
    """A continuation that `best_of` did not choose."""

    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    top_tokens: list[list[Token]] | UnsetType = UNSET


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What `details` adds to an answer."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    best_of_sequences: list[BestOfSequence] | UnsetType = UNSET
    top_tokens: list[list[Token]] | UnsetType = UNSET


class GenerateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `/generate`."""

    generated_text: str
    details: Details | UnsetType = UNSET


class StreamDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What `details` adds to a stream's last event."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream: one token. The last has the whole text."""

    index: int
    token: Token
    top_tokens: list[Token] | UnsetType = UNSET
    generated_text: str | None = None
    details: StreamDetails | None = None


class SimpleToken(msgspec.Struct, frozen=True):
    """A token of `/tokenize` and the bytes of the input it stands for."""

    id: int
    text: str
    start: int
    stop: int


class DetokenizeRequest(msgspec.Struct, kw_only=True, frozen=True):
    """Body of `/detokenize`: token ids under either name."""

    tokens: list[TokenId] | None = None
    ids: list[TokenId] | None = None
    skip_special_tokens: bool | None = None


class DetokenizeResponse(msgspec.Struct, kw_only=True, frozen=True):
    """Answer of `/detokenize`: the text, and once more under the name that vLLM gives it."""

    text: str
    prompt: str


class ChatTokenizeResponse(msgspec.Struct, kw_only=True, frozen=True):
    """Answer of `/chat_tokenize`."""

    tokenize_response: list[SimpleToken]
    templated_text: str


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `/info`; from `backend` on the fields are not TGI's.

    `detail` is what a backend says of its own: which file, or how keys and values are kept.
    """

    model_id: str
    model_sha: str | None
    model_pipeline_tag: str | None
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str
    version: str
    sha: str | None
    docker_label: str | None
    backend: str
    backend_version: str
    device: str
    architecture: str | None
    dtype: str | None
    quantization: str | None
    detail: dict[str, str]
