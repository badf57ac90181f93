"""TGI's `x-…` headers about cost. Times are whole milliseconds, truncated; see docs/server.md."""

from collections.abc import Sequence

from backplane_server.services.generation import Generation
from backplane_server.web.request_record import RawHeader
from backplane_server.web.responses import encode_headers


def stream_compute_headers(generations: Sequence[Generation]) -> dict[str, str]:
    """What is known before the first token."""
    return {
        "x-compute-type": generations[0].model.compute_type if generations else "",
        "x-compute-characters": str(sum(map(_num_characters, generations))),
    }


def compute_headers(generations: Sequence[Generation]) -> list[RawHeader]:
    """What is known at the end; sums where a request had several prompts."""
    if not generations:
        return []
    times = [generation.times for generation in generations]
    num_tokens = sum([generation.num_new_tokens for generation in generations])
    num_prompt_tokens = sum([generation.num_prompt_tokens for generation in generations])
    totals_s = [each.total_s for each in times]
    inference_s = sum([each.inference_s for each in times])
    return [
        *encode_headers(stream_compute_headers(generations)),
        (b"x-compute-time", b"%.6f" % max(totals_s)),
        (b"x-total-time", _milliseconds(sum(totals_s))),
        (b"x-validation-time", _milliseconds(sum([each.validation_s for each in times]))),
        (b"x-queue-time", _milliseconds(sum([each.queue_s for each in times]))),
        (b"x-inference-time", _milliseconds(inference_s)),
        (b"x-time-per-token", _milliseconds(inference_s / max(1, num_tokens))),
        (b"x-prompt-tokens", b"%d" % num_prompt_tokens),
        (b"x-generated-tokens", b"%d" % num_tokens),
    ]


def _num_characters(generation: Generation) -> int:
    prompt = generation.request.prompt
    return len(prompt) if isinstance(prompt, str) else 0


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % (seconds * 1000)
