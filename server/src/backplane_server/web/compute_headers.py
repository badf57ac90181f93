"""TGI's `x-…` headers about cost. Times are whole milliseconds, truncated; see docs/server.md."""

from collections.abc import Sequence

from backplane_server.services.generation import Generation


def stream_compute_headers(generations: Sequence[Generation]) -> dict[str, str]:
    """What is known before the first token."""
    return {
        "x-compute-type": generations[0].model.compute_type if generations else "",
        "x-compute-characters": str(sum(map(_num_characters, generations))),
    }


def compute_headers(generations: Sequence[Generation]) -> dict[str, str]:
    """What is known at the end; sums where a request had several prompts."""
    if not generations:
        return {}
    times = [generation.times for generation in generations]
    num_tokens = sum(generation.num_new_tokens for generation in generations)
    inference_s = sum(each.inference_s for each in times)
    return {
        **stream_compute_headers(generations),
        "x-compute-time": f"{max(each.total_s for each in times):.6f}",
        "x-total-time": _milliseconds(sum(each.total_s for each in times)),
        "x-validation-time": _milliseconds(sum(each.validation_s for each in times)),
        "x-queue-time": _milliseconds(sum(each.queue_s for each in times)),
        "x-inference-time": _milliseconds(inference_s),
        "x-time-per-token": _milliseconds(inference_s / max(1, num_tokens)),
        "x-prompt-tokens": str(sum(each.num_prompt_tokens for each in generations)),
        "x-generated-tokens": str(num_tokens),
    }


def _num_characters(generation: Generation) -> int:
    prompt = generation.request.prompt
    return len(prompt) if isinstance(prompt, str) else 0


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
