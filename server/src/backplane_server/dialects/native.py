"""TGI's native dialect: a body's parameters to a `GenerationRequest`."""

from dataclasses import dataclass
from typing import Final

from backplane_core.control import ServerLaunch
from backplane_core.sampling import SamplingParams, Watermark

from backplane_server.dialects.native_checks import (
    NativeRules,
    num_sequences,
    stop_strings,
)
from backplane_server.dialects.native_grammar import grammar_of
from backplane_server.dialects.native_types import (
    CompatGenerateRequest,
    GenerateParameters,
    GenerateRequest,
)
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.served_model import ServedModel

_NAMES: Final = {
    "prompt": "inputs",
    "logprobs": "top_n_tokens",
    "top_logprobs": "top_n_tokens",
    "num_sequences": "best_of",
    "prompt_logprobs": "decoder_input_details",
    "adapter": "adapter_id",
}
# Which of several is best is told by their logprobs.
_BEST_OF_NAMES: Final = {**_NAMES, "logprobs": "best_of"}
# Parameters left out altogether sample; present but without `do_sample`, they do not.
_LEFT_OUT: Final = GenerateParameters(do_sample=True)
_FULL_TEXT_TAG: Final = "text-generation"


@dataclass(frozen=True)
class NativePlan:
    """A native request, understood.

    Attributes:
        details: whether the answer has `details`.
        top_tokens: whether it has the likeliest tokens too.
        prefix: what is put before the text: the prompt, or nothing.
    """

    generation: GenerationRequest
    details: bool
    top_tokens: bool
    prefix: str


def plan(
    body: GenerateRequest | CompatGenerateRequest,
    settings: ServerLaunch,
    model: ServedModel,
    *,
    stream: bool,
) -> NativePlan:
    """Translate a request.

    Args:
        body: as sent. That of `POST /` has the full text by default, where the model is one
            that continues text.
        settings: the operator's limits.
        model: what is served.
        stream: whether the answer is a stream, which shows every token's logprob.

    Raises:
        ValidationError: a parameter outside its range.
    """
    asked = body.parameters or _LEFT_OUT
    rules = NativeRules(settings=settings, max_input_tokens=model.info.limits.max_input_tokens)
    rules.check(body.inputs, asked, stream=stream)
    count = num_sequences(asked)
    details = bool(asked.details or asked.decoder_input_details)
    is_shown = stream or details
    return NativePlan(
        generation=GenerationRequest(
            prompt=body.inputs,
            add_special=body.add_special_tokens is not False,
            sampling=_sampling(asked, settings),
            seed=asked.seed,
            max_new_tokens=asked.max_new_tokens,
            stops=tuple(stop_strings(asked)),
            keep_stop=True,
            top_logprobs=_top_logprobs(asked, is_shown=is_shown),
            implied_logprobs=count == 1 and not asked.top_n_tokens,
            prompt_logprobs=0 if _tells_prefill(asked, settings) else None,
            num_sequences=count,
            truncate=asked.truncate,
            grammar=grammar_of(asked.grammar),
            adapter=asked.adapter_id or None,
            names=_NAMES if count == 1 else _BEST_OF_NAMES,
        ),
        details=details,
        top_tokens=bool(asked.top_n_tokens) and is_shown,
        prefix=body.inputs if _wants_full_text(body, asked, model) else "",
    )


def _wants_full_text(
    body: GenerateRequest | CompatGenerateRequest, asked: GenerateParameters, model: ServedModel
) -> bool:
    if asked.return_full_text is not None:
        return asked.return_full_text
    return isinstance(body, CompatGenerateRequest) and model.pipeline_tag == _FULL_TEXT_TAG


def _tells_prefill(asked: GenerateParameters, settings: ServerLaunch) -> bool:
    """TGI leaves the list empty, unless it was started with a flag."""
    allowed = settings.enable_prefill_logprobs or not settings.tgi_strict
    return bool(asked.decoder_input_details) and allowed


def _top_logprobs(asked: GenerateParameters, *, is_shown: bool) -> int | None:
    if is_shown:
        return asked.top_n_tokens or 0
    return 0 if num_sequences(asked) > 1 else None


def _sampling(asked: GenerateParameters, settings: ServerLaunch) -> SamplingParams:
    warps = asked.top_k is not None or any(
        value not in {None, 1.0} for value in (asked.temperature, asked.top_p, asked.typical_p)
    )
    samples = asked.do_sample or warps or num_sequences(asked) > 1
    watermark = Watermark(gamma=settings.watermark_gamma, delta=settings.watermark_delta)
    return SamplingParams(
        watermark=watermark if asked.watermark else None,
        repetition_penalty=asked.repetition_penalty or 1.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        temperature=(asked.temperature or 1.0) if samples else 0.0,
        top_k=asked.top_k or 0 if samples else 0,
        top_p=asked.top_p or 1.0,
        typical_p=asked.typical_p or 1.0,
    )
