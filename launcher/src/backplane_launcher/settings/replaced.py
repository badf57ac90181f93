"""TGI's flags that have no effect here: what stands in their place, or why they are refused.

Each is parsed and checked, so that no word behind one is taken for something else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cyclopts.validators import Number

from backplane_launcher.settings.flag import NOT_NEGATIVE, REFUSED, REPLACED, flag
from backplane_launcher.usage import UsageError

REPLACEMENTS: Final[Mapping[str, str]] = {
    "waiting_served_ratio": "prompts are computed in chunks beside running requests, so no ratio "
    "decides when waiting ones join",
    "max_waiting_tokens": "prompts are computed in chunks beside running requests, so none waits "
    "for a number of tokens",
    "prometheus_port": "metrics are at /metrics of the main port",
    "shard_uds_path": "sockets lie in a private folder of each launch",
    "master_addr": "a backend that spans devices finds its own meeting point",
    "master_port": "a backend that spans devices finds its own meeting point",
    "disable_custom_kernels": "which kernels run is the backend's choice; --backend chooses it",
    "otlp_endpoint": "no traces are sent yet; logs carry each request's id",
    "otlp_service_name": "no traces are sent yet; logs carry each request's id",
    "usage_stats": "nothing is ever sent about this installation",
    "max_image_fetch_size": "no images are fetched",
    "enable_prefill_logprobs": "prompt logprobs are there whenever a request asks for them; with "
    "--tgi-strict only with this flag",
}

# What was asked for by these stays away: somebody waits for it elsewhere.
_MISSED: Final = frozenset({"otlp_endpoint", "otlp_service_name"})

REFUSALS: Final[Mapping[str, str]] = dict.fromkeys(
    ("ngrok", "ngrok_authtoken", "ngrok_edge"),
    "Backplane opens no tunnels; run `ngrok http PORT` beside it, and set --api-key",
)


def _replaced(name: str, *, validator: Number | None = None) -> object:
    text = REPLACEMENTS[name]
    return flag(
        REPLACED,
        f"--{name.replace('_', '-')}",
        help=f"{text[0].upper()}{text[1:]}.",
        validator=validator,
    )


def _refused(name: str) -> object:
    return flag(REFUSED, f"--{name.replace('_', '-')}", help=f"{REFUSALS[name]}.")


_PORT: Final = Number(gte=0, lte=65535)


@dataclass(frozen=True, kw_only=True)
class ReplacedSettings:
    """None, or False, is not set."""

    waiting_served_ratio: Annotated[
        float | None, _replaced("waiting_served_ratio", validator=NOT_NEGATIVE)
    ] = None
    max_waiting_tokens: Annotated[
        int | None, _replaced("max_waiting_tokens", validator=NOT_NEGATIVE)
    ] = None
    prometheus_port: Annotated[int | None, _replaced("prometheus_port", validator=_PORT)] = None
    shard_uds_path: Annotated[str | None, _replaced("shard_uds_path")] = None
    master_addr: Annotated[str | None, _replaced("master_addr")] = None
    master_port: Annotated[int | None, _replaced("master_port", validator=_PORT)] = None
    disable_custom_kernels: Annotated[bool, _replaced("disable_custom_kernels")] = False
    otlp_endpoint: Annotated[str | None, _replaced("otlp_endpoint")] = None
    otlp_service_name: Annotated[str | None, _replaced("otlp_service_name")] = None
    usage_stats: Annotated[Literal["on", "off", "no-stack"] | None, _replaced("usage_stats")] = None
    max_image_fetch_size: Annotated[
        int | None, _replaced("max_image_fetch_size", validator=NOT_NEGATIVE)
    ] = None
    enable_prefill_logprobs: Annotated[bool, _replaced("enable_prefill_logprobs")] = False

    ngrok: Annotated[bool, _refused("ngrok")] = False
    ngrok_authtoken: Annotated[str | None, _refused("ngrok_authtoken")] = None
    ngrok_edge: Annotated[str | None, _refused("ngrok_edge")] = None


def notices(
    settings: ReplacedSettings, spelled: Callable[[str], str], *, tgi_strict: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A sentence for each flag that is set and has no effect, as warnings and as mere notices.

    Args:
        settings: what is set.
        spelled: from a flag to how it was given, perhaps by a variable.
        tgi_strict: --enable-prefill-logprobs has its effect.
    """
    warnings: list[str] = []
    others: list[str] = []
    for name, sentence in REPLACEMENTS.items():
        in_effect = tgi_strict and name == "enable_prefill_logprobs"
        if getattr(settings, name) in (None, False) or in_effect:
            continue
        given = spelled(f"--{name.replace('_', '-')}")
        told = warnings if name in _MISSED else others
        told.append(f"{given} has no effect: {sentence}")
    return tuple(warnings), tuple(others)


def refuse(settings: ReplacedSettings) -> None:
    """Refuse a flag whose meaning would be missed.

    Raises:
        UsageError: one is set.
    """
    for name, sentence in REFUSALS.items():
        if getattr(settings, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} is not here: {sentence}")
