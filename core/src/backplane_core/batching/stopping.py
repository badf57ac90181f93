"""When a sequence ends, as far as token ids can say."""

from backplane_core.batching.sequence import Sequence
from backplane_core.messages import FinishReason


def finish_reason(sequence: Sequence) -> FinishReason | None:
    """Why the sequence ends with its newest token, or None.

    An end token on the very last token allowed is reported as what it is, not as "length", as
    OpenAI does; TGI says "length" there. `min_new_tokens` needs no rule: samplers mask end tokens.
    Nor does `ignore_eos` hold under a grammar: its guide lets an end token through only where
    nothing else may follow, and then there is nothing to go on with.
    """
    stopping = sequence.request.stopping
    token_ids = sequence.token_ids
    token_id = token_ids[-1]
    ignore_eos = stopping.ignore_eos and sequence.guide is None
    if token_id in sequence.eos_token_ids and not ignore_eos:
        return "eos"
    if token_id in stopping.stop_token_ids:
        return "stop_token"
    if len(token_ids) - sequence.num_prompt_tokens >= stopping.max_new_tokens:
        return "length"
    return None
