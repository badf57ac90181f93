"""JSON of `/v1/completions`."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from backplane_server.dialects.openai import FinishReason
from backplane_server.dialects.openai_types import Reply, SamplingFields, TextLogprobs, Usage

TEXT_COMPLETION: Final = "text_completion"


class CompletionRequest(SamplingFields, kw_only=True, frozen=True):
    """Body of `/v1/completions`: a text, several, a list of token ids, or several of those.

    `logprobs` counts the alternatives to a token; false is what chats call none. `max_tokens` 0
    scores an echoed prompt.
    """

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=1000)] | bool | None = None
    best_of: Annotated[int, Meta(ge=0, le=128)] | None = None
    echo: bool | None = None
    suffix: Any = None

    @property
    def num_logprobs(self) -> int | None:
        """How many alternatives a token has; None for no logprobs. Means nothing for true."""
        return None if isinstance(self.logprobs, bool) else self.logprobs


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One continuation; `index` counts the choices of the first prompt, then the next's."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class Completion(
    Reply[CompletionChoice], frozen=True, kw_only=True, tag_field="object", tag=TEXT_COMPLETION
):
    """Answer of `/v1/completions`, and one event of its stream."""

    usage: Usage | None
