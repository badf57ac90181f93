"""The rules of TGI's parameters, in the order in which TGI looks at them.

A body with several faults names the first. Lengths in tokens and grammars come later, in that
order too: they cost something.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backplane_core.control import ServerLaunch
from backplane_core.errors import ValidationError

from backplane_server.dialects.native_types import GenerateParameters
from backplane_server.services.request_checks import check_stops

# Single-precision logits survive being scaled by these; TGI takes anything above 0.
_LEAST_SCALE: Final = 1e-6
_MOST_SCALE: Final = 1e6
_MOST_PENALTY: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class NativeRules:
    """What requests are held against.

    Attributes:
        settings: the operator's limits.
        max_input_tokens: the model's.
    """

    settings: ServerLaunch
    max_input_tokens: int

    def check(self, inputs: str, asked: GenerateParameters, *, stream: bool) -> None:
        """Refuse the first fault.

        Raises:
            ValidationError: naming the parameter and the limit.
        """
        if asked.seed is not None and asked.seed >= 1 << 64:
            raise ValidationError("`seed` must be less than 2**64", parameter="seed")
        if stream:
            _check_stream(asked)
        self._check_best_of(asked)
        for rule in _RANGES:
            value: float | None = getattr(asked, rule.name)
            if value is not None and not rule.holds(value):
                raise ValidationError(
                    f"`{rule.name}` must be {rule.sentence}. Given: {value:g}", parameter=rule.name
                )
        check_stops(stop_strings(asked), self.settings)
        if num_sequences(asked) > 1 and asked.seed is not None:
            raise ValidationError(
                "`seed` cannot be set where `best_of` is more than 1", parameter="seed"
            )
        self._check_top_n(asked.top_n_tokens or 0)
        if not inputs:
            raise ValidationError("`inputs` cannot be empty", parameter="inputs")
        self._check_truncate(asked.truncate)

    def _check_best_of(self, asked: GenerateParameters) -> None:
        count = num_sequences(asked)
        most = self.settings.max_best_of
        if count <= 1:
            return
        if count > most:
            limit = f"must be at least 1 and at most {most}" if most > 1 else "must be 1 here"
            raise ValidationError(
                f"`best_of` {limit}. Given: {count}",
                parameter="best_of",
                remedy="the flag --max-best-of sets the limit",
            )
        if not (asked.do_sample or is_narrowed(asked)):
            raise ValidationError(
                "`best_of` of more than 1 needs sampling, or all would be alike: set `do_sample`",
                parameter="best_of",
            )

    def _check_top_n(self, count: int) -> None:
        most = self.settings.max_top_n_tokens
        if count > most:
            raise ValidationError(
                f"`top_n_tokens` must be at least 0 and at most {most}. Given: {count}",
                parameter="top_n_tokens",
                remedy="the flag --max-top-n-tokens sets the limit",
            )

    def _check_truncate(self, count: int | None) -> None:
        if count is not None and not 1 <= count <= self.max_input_tokens:
            raise ValidationError(
                f"`truncate` must be at least 1 and at most {self.max_input_tokens}. "
                f"Given: {count}",
                parameter="truncate",
            )


def num_sequences(asked: GenerateParameters) -> int:
    """How many continuations are made; 0 is taken as 1."""
    return asked.best_of or 1


def is_narrowed(asked: GenerateParameters) -> bool:
    """Whether a parameter is there that has a meaning only where tokens are drawn."""
    narrowing = (asked.temperature, asked.top_k, asked.top_p, asked.typical_p)
    return any(value is not None for value in narrowing)


def stop_strings(asked: GenerateParameters) -> list[str]:
    """`stop` as a list."""
    return [asked.stop] if isinstance(asked.stop, str) else asked.stop or []


def _check_stream(asked: GenerateParameters) -> None:
    if asked.best_of not in {None, 1}:
        raise ValidationError(
            "`best_of` other than 1 is not supported in a stream", parameter="best_of"
        )
    if asked.decoder_input_details:
        raise ValidationError(
            "`decoder_input_details` is not supported in a stream",
            parameter="decoder_input_details",
        )


@dataclass(frozen=True)
class _Range:
    name: str
    holds: Callable[[float], bool]
    sentence: str


_RANGES: Final = (
    _Range(
        "temperature",
        lambda value: 0 < value <= _MOST_SCALE,
        f"more than 0 and at most {_MOST_SCALE:g}",
    ),
    _Range(
        "repetition_penalty",
        lambda value: _LEAST_SCALE <= value <= _MOST_SCALE,
        f"more than 0: {_LEAST_SCALE:g} to {_MOST_SCALE:g}",
    ),
    _Range(
        "frequency_penalty",
        lambda value: -_MOST_PENALTY <= value <= _MOST_PENALTY,
        f"at least {-_MOST_PENALTY} and at most {_MOST_PENALTY}",
    ),
    # TGI refuses 1, which is off.
    _Range("top_p", lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    _Range("typical_p", lambda value: 0 < value < 1, "more than 0 and less than 1"),
    _Range("top_k", lambda value: value > 0, "more than 0"),
    _Range("max_new_tokens", lambda value: value > 0, "more than 0"),
)
