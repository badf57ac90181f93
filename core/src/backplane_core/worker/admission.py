"""What a worker checks before a request reaches its runner.

The worker admits, not the servers, so limits hold whatever the number of servers.
"""

import math
from collections.abc import Iterator
from typing import Final

from backplane_core.capabilities import Capabilities
from backplane_core.capability_check import unsupported
from backplane_core.errors import UnsupportedError, ValidationError
from backplane_core.messages import MediaSegment, RunnerInfo, Submit
from backplane_core.sampling import SamplingParams, StoppingParams

# Field → lowest, highest, and whether the lowest is allowed.
_SAMPLING_RANGES: Final = {
    "repetition_penalty": (0.0, math.inf, False),
    "temperature": (0.0, math.inf, True),
    "frequency_penalty": (-math.inf, math.inf, False),
    "presence_penalty": (-math.inf, math.inf, False),
    "top_p": (0.0, 1.0, False),
    "min_p": (0.0, 1.0, True),
    "typical_p": (0.0, 1.0, False),
}


def check_request(request: Submit, info: RunnerInfo) -> None:
    """Refuse what this runner cannot serve.

    Raises:
        UnsupportedError: outside the runner's capabilities.
        ValidationError: a value out of range, or more tokens than fit.
    """
    _check_capabilities(request, info.capabilities, info.model.backend)
    _check_sampling(request.sampling)
    _check_stopping(request.stopping, len(info.vocabulary.tokens))
    _check_lengths(request, info)
    if request.num_sequences < 1:
        raise ValidationError("`num_sequences` must be at least 1", parameter="num_sequences")


def _check_capabilities(request: Submit, can: Capabilities, backend: str) -> None:
    missing = unsupported(
        can,
        sampling=request.sampling,
        stopping=request.stopping,
        top_logprobs=request.top_logprobs,
        prompt_logprobs=request.prompt_logprobs,
        num_sequences=request.num_sequences,
        grammar=request.grammar,
        adapter=request.adapter,
    )
    for parameter, reason in (*missing, *_unsupported_kinds(request, can)):
        raise UnsupportedError(
            f"`{parameter}` is not supported: backend {backend} {reason}", parameter=parameter
        )


def _unsupported_kinds(request: Submit, can: Capabilities) -> Iterator[tuple[str, str]]:
    """What no client's parameter says directly."""
    if request.kind == "embed" and not can.embeddings:
        yield "kind", "computes no embeddings"
    for segment in request.prompt:
        if isinstance(segment, MediaSegment) and segment.modality not in can.modalities:
            yield "prompt", f"takes no {segment.modality}"


def _check_sampling(sampling: SamplingParams) -> None:
    for name, (low, high, low_included) in _SAMPLING_RANGES.items():
        value: float = getattr(sampling, name)
        inside = math.isfinite(value) and (low < value or (low_included and value == low))
        if not (inside and value <= high):
            raise ValidationError(f"`{name}` of {value} is out of range", parameter=name)
    if (mark := sampling.watermark) is not None and not (
        0.0 < mark.gamma < 1.0 and math.isfinite(mark.delta)
    ):
        raise ValidationError(
            f"`watermark` needs a gamma between 0 and 1 and a finite delta, not {mark.gamma} and "
            f"{mark.delta}",
            parameter="watermark",
        )
    if sampling.top_k < 0:
        raise ValidationError(f"`top_k` of {sampling.top_k} is negative", parameter="top_k")
    if not 0 <= sampling.seed < 1 << 64:
        raise ValidationError(f"`seed` of {sampling.seed} is not a 64-bit number", parameter="seed")
    if not all(math.isfinite(bias) for bias in sampling.logit_bias.values()):
        raise ValidationError("`logit_bias` holds a value not finite", parameter="logit_bias")


def _check_stopping(stopping: StoppingParams, num_vocabulary: int) -> None:
    if stopping.max_new_tokens < 1:
        raise ValidationError("`max_new_tokens` must be at least 1", parameter="max_new_tokens")
    if not 0 <= stopping.min_new_tokens <= stopping.max_new_tokens:
        raise ValidationError(
            "`min_new_tokens` must be between 0 and `max_new_tokens`", parameter="min_new_tokens"
        )
    if any(not 0 <= token_id < num_vocabulary for token_id in stopping.stop_token_ids):
        raise ValidationError(
            "`stop_token_ids` holds an id outside the vocabulary", parameter="stop_token_ids"
        )


def _check_lengths(request: Submit, info: RunnerInfo) -> None:
    token_ids = request.prompt_token_ids
    num_vocabulary = len(info.vocabulary.tokens)
    if not token_ids:
        raise ValidationError("the prompt is empty", parameter="prompt")
    unknown = min(token_ids) if min(token_ids) < 0 else max(token_ids)
    if not 0 <= unknown < num_vocabulary:
        raise ValidationError(
            f"the prompt holds token id {unknown}, outside the vocabulary of {num_vocabulary}",
            parameter="prompt",
        )
    if any(not 0 <= token_id < num_vocabulary for token_id in request.sampling.logit_bias):
        raise ValidationError(
            "`logit_bias` holds an id outside the vocabulary", parameter="logit_bias"
        )
    limits = info.limits
    total = len(token_ids) + request.stopping.max_new_tokens
    if total > limits.max_total_tokens:
        raise ValidationError(
            f"{len(token_ids)} prompt tokens and {request.stopping.max_new_tokens} new ones are "
            f"more than the {limits.max_total_tokens} a sequence may have",
            parameter="max_new_tokens",
        )
    if len(token_ids) > limits.max_input_tokens:
        raise ValidationError(
            f"{len(token_ids)} prompt tokens are more than the {limits.max_input_tokens} allowed",
            parameter="prompt",
        )
