"""The sampling semantics of `docs/sampling.md`, written for reading: plain Python, float64.

Knows nothing of vectors, devices or speed. Runners are tested against the vectors made from it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from backplane_core.sampling import SamplingParams, uniform
from backplane_core.watermark import is_green


def process_logits(
    logits: Mapping[int, float],
    params: SamplingParams,
    prompt: Sequence[int],
    output: Sequence[int],
    *,
    masked: Collection[int] = (),
    allowed: Collection[int] | None = None,
) -> dict[int, float]:
    """Watermark, bias, penalties and masks, in that order; what is masked is left out.

    Args:
        logits: token id → the model's logit.
        params: the request's parameters.
        prompt: its token ids; at least one.
        output: the token ids so far.
        masked: ids that may not come: end tokens before `min_new_tokens`. They may after all
            where `allowed` holds no others.
        allowed: the only ids a grammar lets come; None is no grammar.
    """
    if allowed is not None and set(allowed) <= set(masked):
        masked = ()
    sampled = Counter(output)
    seen = sampled.keys() | set(prompt)
    previous = output[-1] if output else prompt[-1]
    result: dict[int, float] = {}
    for token_id in sorted(logits):
        if token_id in masked or (allowed is not None and token_id not in allowed):
            continue
        logit = logits[token_id]
        mark = params.watermark
        if mark is not None and is_green(previous, token_id, mark.gamma):
            logit += mark.delta
        logit += params.logit_bias.get(token_id, 0.0)
        if token_id in seen:
            penalty = params.repetition_penalty
            logit = logit / penalty if logit > 0 else logit * penalty
        if count := sampled[token_id]:
            logit -= count * params.frequency_penalty + params.presence_penalty
        result[token_id] = logit
    return result


def softmax(logits: Mapping[int, float]) -> dict[int, float]:
    """Logits → probabilities that sum to 1."""
    highest = max(logits.values())
    weights = {token_id: math.exp(logit - highest) for token_id, logit in logits.items()}
    total = math.fsum(weights.values())
    return {token_id: weight / total for token_id, weight in weights.items()}


def log_softmax(logits: Mapping[int, float]) -> dict[int, float]:
    """Logits → natural logarithms of the probabilities."""
    highest = max(logits.values())
    total = math.fsum(math.exp(logit - highest) for logit in logits.values())
    normalizer = highest + math.log(total)
    return {token_id: logit - normalizer for token_id, logit in logits.items()}


def greedy(logits: Mapping[int, float]) -> int:
    """The highest logit, the lowest id among equals."""
    return min(logits, key=lambda token_id: (-logits[token_id], token_id))


def distribution(processed: Mapping[int, float], params: SamplingParams) -> dict[int, float]:
    """Temperature and the four truncations: kept token id → probability, ascending ids."""
    if params.greedy:
        return {greedy(processed): 1.0}
    kept = softmax({key: logit / params.temperature for key, logit in processed.items()})
    if 0 < params.top_k < len(kept):
        kept = _renormalized(kept, _by_probability(kept)[: params.top_k])
    if params.top_p < 1.0:
        kept = _renormalized(kept, _reaching(_by_probability(kept), kept, params.top_p))
    if params.min_p > 0.0:
        floor = params.min_p * max(kept.values())
        kept = _renormalized(kept, [key for key in kept if kept[key] >= floor])
    if params.typical_p < 1.0:
        kept = _renormalized(kept, _reaching(_by_typicality(kept), kept, params.typical_p))
    return kept


def draw(probabilities: Mapping[int, float], number: float) -> int:
    """The first id, ascending, at which the cumulative probability exceeds `number`.

    Rounding can leave the sum of all just below 1; the last id then takes the rest.
    """
    cumulative = 0.0
    last = -1
    for token_id in sorted(probabilities):
        last = token_id
        cumulative += probabilities[token_id]
        if cumulative > number:
            break
    return last


def sample(
    logits: Mapping[int, float],
    params: SamplingParams,
    prompt: Sequence[int],
    output: Sequence[int],
    *,
    seed: int,
    masked: Collection[int] = (),
    allowed: Collection[int] | None = None,
) -> int:
    """The token that follows; its position is the length of prompt and output together."""
    processed = process_logits(logits, params, prompt, output, masked=masked, allowed=allowed)
    if params.greedy:
        return greedy(processed)
    return draw(distribution(processed, params), uniform(seed, len(prompt) + len(output)))


def _by_probability(kept: Mapping[int, float]) -> list[int]:
    return sorted(kept, key=lambda token_id: (-kept[token_id], token_id))


def _by_typicality(kept: Mapping[int, float]) -> list[int]:
    surprise = {key: -math.log(share) for key, share in kept.items() if share > 0.0}
    entropy = math.fsum(kept[key] * surprise[key] for key in surprise)
    return sorted(surprise, key=lambda key: (abs(surprise[key] - entropy), key))


def _reaching(order: list[int], kept: Mapping[int, float], mass: float) -> list[int]:
    """The shortest beginning of `order` whose probabilities reach `mass`; at least one."""
    cumulative = 0.0
    for count, token_id in enumerate(order, start=1):
        cumulative += kept[token_id]
        if cumulative >= mass:
            return order[:count]
    return order


def _renormalized(kept: Mapping[int, float], chosen: Collection[int]) -> dict[int, float]:
    total = math.fsum(kept[token_id] for token_id in chosen)
    return {token_id: kept[token_id] / total for token_id in sorted(chosen)}
