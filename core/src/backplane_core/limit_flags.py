"""Flags that set limits, checked and brought into agreement: with them each plan begins."""

from typing import Final

from backplane_core.backend import EngineSettings
from backplane_core.errors import BackendError

# One of a prompt, one of its answer.
_FEWEST_TOKENS: Final = 2


def positive(flag: str, value: int | None) -> int | None:
    """The value of a flag, if it was given.

    Raises:
        BackendError: it is below 1.
    """
    if value is not None and value < 1:
        raise BackendError(f"{flag} is {value}, but must be at least 1")
    return value


def agreed(first_flag: str, first: int | None, second_flag: str, second: int | None) -> int | None:
    """The value of two flags that mean the same.

    Raises:
        BackendError: they differ, or it is below 1.
    """
    if first is not None and second is not None and first != second:
        raise BackendError(f"{first_flag} {first} and {second_flag} {second} mean the same thing")
    return positive(first_flag, first) or positive(second_flag, second)


def model_sees(max_positions: int, engine: EngineSettings) -> str:
    """How far a model goes, in words: `--rope-factor` has its part in `max_positions`."""
    factor = engine.rope_factor or 1.0
    return f"the model sees {max_positions} tokens" + (
        f", stretched by {factor:g}" if factor > 1.0 else ""
    )


def max_total_tokens(engine: EngineSettings, max_positions: int | None) -> int | None:
    """The longest sequence that was asked for, of a model that sees so many tokens (None: any).

    Raises:
        BackendError: it is below 1, or more than that.
    """
    asked = positive("--max-total-tokens", engine.max_total_tokens)
    if asked is not None and max_positions is not None and asked > max_positions:
        raise BackendError(
            f"--max-total-tokens is {asked}, but {model_sees(max_positions, engine)}",
            remedy="lower it, or leave it out for the most there is",
        )
    return asked


def check_cache_holds(max_total_tokens: int | None, cache_tokens: int) -> None:
    """Refuse a longest sequence, if one was asked for, that the cache has no room for.

    Raises:
        BackendError: as said.
    """
    if max_total_tokens is not None and max_total_tokens > cache_tokens:
        raise BackendError(
            f"--max-total-tokens is {max_total_tokens}, but the cache holds {cache_tokens} tokens",
            remedy="lower it, or raise --max-batch-total-tokens or --cuda-memory-fraction",
        )


def max_input_tokens(max_total_tokens: int, engine: EngineSettings) -> int:
    """The longest prompt: as asked, or all but a token.

    Raises:
        BackendError: what was asked, or the longest sequence, leaves no room for a token.
    """
    if max_total_tokens < _FEWEST_TOKENS:
        raise BackendError(
            "a sequence of one token has no room for a prompt and an answer",
            remedy="raise --max-total-tokens or --max-batch-total-tokens, or leave them out",
        )
    asked = positive("--max-input-tokens", engine.max_input_tokens)
    if asked is not None and asked >= max_total_tokens:
        raise BackendError(
            f"--max-input-tokens is {asked}, but must be below --max-total-tokens, "
            f"{max_total_tokens}",
            remedy="lower it, or leave it out for the most there is",
        )
    return asked or max_total_tokens - 1
