"""What a request is held against before it costs anything: limits, then capabilities.

The worker checks again; here the client's own names for the parameters are known.
"""

from collections.abc import Sequence
from typing import Final

from backplane_core.capability_check import unsupported
from backplane_core.control import ServerLaunch
from backplane_core.errors import UnsupportedError, ValidationError
from backplane_core.messages import RunnerInfo
from backplane_core.sampling import StoppingParams

from backplane_server.services.generation_request import GenerationRequest

_MAX_STOP_CHARS: Final = 1000
_MAX_IDS_LISTED: Final = 1024
# As many as OpenAI's routes promise; the native ones hold a request against TGI's setting first.
_OPENAI_TOP_LOGPROBS: Final = 20
_MORE_LOGPROBS: Final = (
    f"the flag --max-top-n-tokens, where it is more than {_OPENAI_TOP_LOGPROBS}, raises the limit"
)


def check_request(request: GenerationRequest, settings: ServerLaunch, info: RunnerInfo) -> None:
    """Refuse what is outside the limits or the capabilities.

    Raises:
        ValidationError: over a limit.
        UnsupportedError: a parameter that this backend cannot honour.
    """
    _check_limits(request, settings, info)
    missing = unsupported(
        info.capabilities,
        sampling=request.sampling,
        stopping=StoppingParams(
            max_new_tokens=request.max_new_tokens or 1,
            min_new_tokens=request.min_new_tokens,
            stop_token_ids=request.stop_token_ids,
            ignore_eos=request.ignore_eos,
        ),
        top_logprobs=request.top_logprobs,
        num_sequences=request.num_sequences,
        prompt_logprobs=request.prompt_logprobs,
        seed_asked=request.seed is not None,
        adapter=request.adapter,
    )
    for parameter, reason in missing:
        raise _unsupported(request, parameter, info, reason)


def check_grammar(request: GenerationRequest, settings: ServerLaunch, info: RunnerInfo) -> None:
    """Refuse a grammar where there are none: the last of all checks, as in TGI.

    Raises:
        UnsupportedError: the operator wants none, or the backend has not this kind.
    """
    grammar = request.grammar
    if grammar is None:
        return
    if settings.disable_grammar_support:
        name = request.name_of("grammar")
        raise UnsupportedError(
            f"`{name}`: grammar is not supported",
            parameter=name,
            remedy="the server was started with --disable-grammar-support",
        )
    if grammar.kind not in info.capabilities.grammars:
        reason = f"obeys no grammars of kind {grammar.kind}"
        raise _unsupported(request, "grammar", info, reason)


def _unsupported(
    request: GenerationRequest, parameter: str, info: RunnerInfo, reason: str
) -> UnsupportedError:
    name = request.name_of(parameter)
    return UnsupportedError(
        f"`{name}` is not supported by the backend {info.model.backend}, which {reason}",
        parameter=name,
    )


def _check_limits(request: GenerationRequest, settings: ServerLaunch, info: RunnerInfo) -> None:
    if not request.prompt:
        name = request.name_of("prompt")
        raise ValidationError(f"`{name}` cannot be empty", parameter=name)
    check_stops(request.stops, settings)
    _check_logprobs(request, max(settings.max_top_n_tokens, _OPENAI_TOP_LOGPROBS))
    _check_token_ids(request, len(info.vocabulary.tokens))
    if request.num_sequences > info.limits.max_sequences:
        name = request.name_of("num_sequences")
        raise ValidationError(
            f"`{name}` must be at most {info.limits.max_sequences}, the sequences that run at a "
            f"time, not {request.num_sequences}",
            parameter=name,
        )
    if request.truncate is not None and request.truncate > info.limits.max_input_tokens:
        name = request.name_of("truncate")
        raise ValidationError(
            f"`{name}` must be at most {info.limits.max_input_tokens}, not {request.truncate}",
            parameter=name,
        )


def check_stops(stops: Sequence[str], settings: ServerLaunch) -> None:
    """Refuse too many stop strings, or one that is empty or too long.

    Raises:
        ValidationError: saying which.
    """
    if len(stops) > settings.max_stop_sequences:
        raise ValidationError(
            f"`stop` may hold at most {settings.max_stop_sequences} strings. Given: {len(stops)}",
            parameter="stop",
            remedy="the flag --max-stop-sequences sets the limit",
        )
    if any(not 0 < len(stop) <= _MAX_STOP_CHARS for stop in stops):
        raise ValidationError(
            f"each string in `stop` must have 1 to {_MAX_STOP_CHARS} characters", parameter="stop"
        )


def _check_logprobs(request: GenerationRequest, most: int) -> None:
    for parameter in ("top_logprobs", "prompt_logprobs"):
        count: int | None = getattr(request, parameter)
        if (count or 0) > most:
            name = request.name_of(parameter)
            raise ValidationError(
                f"`{name}` must be at most {most}, not {count}",
                parameter=name,
                remedy=_MORE_LOGPROBS,
            )


def _check_token_ids(request: GenerationRequest, num_vocabulary: int) -> None:
    listed = {"logit_bias": request.sampling.logit_bias, "stop_token_ids": request.stop_token_ids}
    for parameter, token_ids in listed.items():
        name = request.name_of(parameter)
        if len(token_ids) > _MAX_IDS_LISTED:
            raise ValidationError(
                f"`{name}` may name at most {_MAX_IDS_LISTED} tokens, not {len(token_ids)}",
                parameter=name,
            )
        for token_id in token_ids:
            if not 0 <= token_id < num_vocabulary:
                raise ValidationError(
                    f"`{name}` names token {token_id}, which is not one of the vocabulary's "
                    f"{num_vocabulary}",
                    parameter=name,
                )


def fit_to_context(request: GenerationRequest, num_prompt_tokens: int, info: RunnerInfo) -> int:
    """How many new tokens the request may have at most.

    Raises:
        ValidationError: the prompt, or prompt and new tokens together, are too long.
    """
    limits = info.limits
    prompt_name = request.name_of("prompt")
    room = limits.max_total_tokens - num_prompt_tokens
    new_name = request.name_of("max_new_tokens")
    max_new_tokens = max(0, room) if request.max_new_tokens is None else request.max_new_tokens
    if max_new_tokens > room:
        raise ValidationError(
            f"`{prompt_name}` tokens + `{new_name}` must be <= {limits.max_total_tokens}. "
            f"Given: {num_prompt_tokens} `{prompt_name}` tokens and {max_new_tokens} "
            f"`{new_name}`",
            parameter=prompt_name if request.max_new_tokens is None else new_name,
        )
    if num_prompt_tokens > limits.max_input_tokens:
        raise ValidationError(
            f"`{prompt_name}` must have less than {limits.max_input_tokens + 1} tokens. "
            f"Given: {num_prompt_tokens}",
            parameter=prompt_name,
        )
    if request.max_new_tokens is not None and request.min_new_tokens > request.max_new_tokens:
        name = request.name_of("min_new_tokens")
        raise ValidationError(
            f"`{name}` of {request.min_new_tokens} is more than "
            f"`{new_name}` of {request.max_new_tokens}",
            parameter=name,
        )
    return max(1, max_new_tokens)
