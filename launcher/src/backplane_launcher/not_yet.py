"""TGI's flags that are known and not here yet: each is answered with a sentence, never ignored."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from backplane_launcher.usage import UsageError

NOT_YET: Final = frozenset(
    {
        "--sharded",
        "--speculate",
        "--waiting-served-ratio",
        "--max-waiting-tokens",
        "--cuda-graphs",
        "--prometheus-port",
        "--shard-uds-path",
        "--master-addr",
        "--master-port",
        "--weights-cache-override",
        "--disable-custom-kernels",
        "--cuda-memory-fraction",
        "--rope-scaling",
        "--rope-factor",
        "--otlp-endpoint",
        "--otlp-service-name",
        "--watermark-gamma",
        "--watermark-delta",
        "--ngrok",
        "--ngrok-authtoken",
        "--ngrok-edge",
        "--disable-grammar-support",
        "--env",
        "-e",
        "--lora-adapters",
        "--usage-stats",
        "--enable-prefill-logprobs",
        "--max-image-fetch-size",
    }
)

# These leak into environments that do not mean us, or mean nothing to a successor.
_SILENT_VARIABLES: Final = frozenset({"ENV", "E", "PROMETHEUS_PORT", "MASTER_ADDR", "MASTER_PORT"})


def refuse_flags_not_here(argv: Iterable[str], taken: Collection[str]) -> None:
    """Refuse a known TGI flag that nobody takes; `taken` are flags the backends claim.

    Raises:
        UsageError: `argv` has such a flag.
    """
    for token in argv:
        if token == "--":  # noqa: S105 - the end of options, no secret
            return
        name = token.partition("=")[0]
        if name in NOT_YET and name not in taken:
            raise UsageError(f"{name} is a known TGI flag that Backplane does not have yet")


def variables_not_here(environ: Mapping[str, str], taken: Collection[str]) -> list[str]:
    """A sentence for each variable of such a flag: it is not read, which must not be silent."""
    names = {
        flag.removeprefix("--").replace("-", "_").upper()
        for flag in NOT_YET - set(taken)
        if flag.startswith("--")
    }
    return [
        f"{name} is set, but Backplane does not have --{name.lower().replace('_', '-')} yet"
        for name in sorted(names - _SILENT_VARIABLES)
        if environ.get(name, "").strip()
    ]
