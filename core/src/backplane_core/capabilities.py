"""What a runner can do and how much of it: the facts a server needs before it takes a request.

A known parameter outside these is answered with a 422 that names it and the backend.
"""

import msgspec


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a runner honours. The defaults promise nothing.

    Attributes:
        sampling: names of the `SamplingParams` fields it honours ("temperature", "top_k", …).
        stopping: names of the optional `StoppingParams` fields it honours.
        max_top_logprobs: how many alternatives per token it can report; None is no logprobs
            at all, 0 is the chosen token's only.
        prompt_logprobs: whether it can report logprobs of the prompt's tokens.
        multiple_sequences: whether `num_sequences > 1` is served; forked after one prefill, where
            sequences can share a prompt.
        grammars: kinds of grammar it obeys ("json_schema", "regex", "lark").
        adapters: whether it loads and applies adapters per request.
        speculation: kinds of draft-token speculation ("ngram", "draft", "medusa", "eagle").
        modalities: what prompts may hold; "text" always.
        embeddings: whether `kind="embed"` is answered.
        quantizations: formats it loads, as its ecosystem names them.
        prefix_cache: whether a prompt's known prefix is not computed again.
        deterministic_seeds: same seed, same tokens, whatever else is in the batch.
    """

    sampling: tuple[str, ...] = ()
    stopping: tuple[str, ...] = ()
    max_top_logprobs: int | None = None
    prompt_logprobs: bool = False
    multiple_sequences: bool = False
    grammars: tuple[str, ...] = ()
    adapters: bool = False
    speculation: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("text",)
    embeddings: bool = False
    quantizations: tuple[str, ...] = ()
    prefix_cache: bool = False
    deterministic_seeds: bool = False


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a runner takes, in tokens and sequences.

    Attributes:
        max_total_tokens: prompt plus new tokens of one sequence.
        max_input_tokens: prompt tokens of one sequence; below `max_total_tokens`.
        max_batch_tokens: tokens computed in one engine step.
        max_sequences: sequences that run at a time.
        max_waiting_requests: requests that may wait beyond those; the next is refused.
        cache_tokens: tokens the key-value cache holds for all sequences together.
    """

    max_total_tokens: int
    max_input_tokens: int
    max_batch_tokens: int
    max_sequences: int
    max_waiting_requests: int
    cache_tokens: int
