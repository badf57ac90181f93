"""What a sequence asks of whoever samples it, as far as parameters and token counts tell.

Shared by the backends' samplers, whose arithmetic is their own. Knows no logits.
"""

from typing import Final

from backplane_core.batching.sequence import Sequence
from backplane_core.errors import GenerationError
from backplane_core.sampling import SamplingParams

# Hotter than this all tokens are equally likely; float32 has no room for much more.
HOTTEST: Final = 1e30


def penalizes(params: SamplingParams) -> bool:
    """Whether tokens that came already are treated apart."""
    penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
    return penalties != (1.0, 0.0, 0.0)


def end_token_ids_to_mask(sequence: Sequence, num_ahead: int = 0) -> list[int]:
    """End tokens that may not come yet, because of `min_new_tokens`.

    `num_ahead` is how many tokens it has beyond those it knows of.
    """
    stopping = sequence.stopping
    if sequence.num_output_tokens + num_ahead >= stopping.min_new_tokens:
        return []
    return [*sequence.eos_token_ids, *stopping.stop_token_ids]


def no_token() -> GenerationError:
    """Why nothing was drawn from a row."""
    return GenerationError(
        "no token can follow: every logit is masked or not a number",
        remedy="look at the grammar, logit_bias and min_new_tokens; else the model file "
        "may be broken",
    )
