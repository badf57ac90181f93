"""What the batching toolkit itself cannot serve, told before a request is queued.

The worker has checked a request against the runner's capabilities and limits already.
"""

from backplane_core.batching.executor import ExecutorTraits
from backplane_core.batching.memory import Memory
from backplane_core.errors import UnsupportedError, ValidationError
from backplane_core.messages import Submit, TokenSegment


def check_request(
    request: Submit, traits: ExecutorTraits, memory: Memory, backend: str, *, guided: bool
) -> None:
    """Refuse what can never be scheduled; `guided` says whether grammars are obeyed.

    Raises:
        UnsupportedError: it asks for something the toolkit or the executor does not do.
        ValidationError: it is malformed or longer than the cache.
    """
    if request.kind != "generate":
        raise UnsupportedError(f"{backend} makes no embeddings", parameter="kind")
    if not all(isinstance(segment, TokenSegment) for segment in request.prompt):
        raise UnsupportedError(f"{backend} takes text only", parameter="prompt")
    if request.grammar is not None and not guided:
        raise UnsupportedError(f"{backend} obeys no grammars", parameter="grammar")
    if request.prompt_logprobs is not None and not traits.max_scored_tokens:
        raise UnsupportedError(
            f"{backend} reports no logprobs of the prompt", parameter="prompt_logprobs"
        )
    if request.adapter is not None and not traits.adapters_per_batch:
        raise UnsupportedError(f"{backend} has no adapters", parameter="adapter")
    if request.num_sequences < 1:
        raise ValidationError("num_sequences must be 1 or more", parameter="num_sequences")
    _check_length(request, memory)


def _check_length(request: Submit, memory: Memory) -> None:
    num_prompt_tokens = len(request.prompt_token_ids)
    max_new_tokens = request.stopping.max_new_tokens
    if not num_prompt_tokens:
        raise ValidationError("the prompt has no tokens", parameter="prompt")
    if max_new_tokens < 1:
        raise ValidationError("max_new_tokens must be 1 or more", parameter="max_new_tokens")
    room = f"a sequence holds {memory.max_sequence_tokens}"
    if num_prompt_tokens > memory.max_sequence_tokens:
        raise ValidationError(
            f"the prompt's {num_prompt_tokens} tokens do not fit: {room}", parameter="prompt"
        )
    # The last new token is never computed, so it needs no room.
    if num_prompt_tokens + max_new_tokens - 1 > memory.max_sequence_tokens:
        raise ValidationError(
            f"{num_prompt_tokens} prompt tokens and {max_new_tokens} new ones do not fit: {room}",
            parameter="max_new_tokens",
        )
