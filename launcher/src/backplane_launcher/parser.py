"""The cyclopts application: one function a command, each giving a `Command` value.

Signatures are put together at run time, since backends have flags of their own and several
commands share some of the launcher's.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from backplane_launcher import backend_flags
from backplane_launcher.bench_parser import bench_app
from backplane_launcher.catalogue import Catalogue
from backplane_launcher.commands import (
    BackendsCommand,
    Command,
    DetectWatermarkCommand,
    DownloadCommand,
    PrintSchemaCommand,
    QuantizeCommand,
    ServeCommand,
)
from backplane_launcher.environment import EnvironmentFlags
from backplane_launcher.settings import LaunchSettings, flags_of, subset_of
from backplane_launcher.signatures import mounted, positional, settings_from, with_signature
from backplane_launcher.usage import UsageError

COMMANDS: Final = (
    "backends",
    "download-weights",
    "quantize",
    "print-schema",
    "detect-watermark",
    "bench",
    "bench engine",
)

_DOWNLOADING: Final = (
    "revision",
    "gguf_file",
    "trust_remote_code",
    "huggingface_hub_cache",
    "backend",
    "backend_python",
    "json_output",
    "log_level",
)


def flags_of_settings() -> frozenset[str]:
    """Every flag of the launcher's own, `--help` and `--version` included."""
    parameters = flags_of(LaunchSettings).values()
    names = (name for parameter in parameters for name in parameter.name or ())
    return frozenset(names) | {"--help", "-h", "--version", "-V"}


@dataclass(frozen=True, kw_only=True)
class Parser:
    """The application over the backends that are known.

    `named` is the backend that the command line names, `source` the environment.
    """

    known: Catalogue
    source: EnvironmentFlags
    named: str | None

    def build(self) -> App:
        """Put the application together."""
        app = App(
            name="backplane",
            version_flags=(),
            help_flags=(),
            config=self.source,
            result_action="return_value",
        )
        theirs = backend_flags.parameters(self.known.facts, flags_of_settings(), self.named)
        app.default(self._serve(theirs))
        app.command(self._backends, name="backends")
        app.command(self._download_weights(), name="download-weights")
        app.command(self._quantize(), name="quantize")
        app.command(_print_schema, name="print-schema")
        app.command(_detect_watermark, name="detect-watermark")
        app.command(bench_app(self.known, theirs))
        return app

    def _serve(self, theirs: Sequence[inspect.Parameter]) -> Callable[..., Command]:
        def serve(**values: Any) -> ServeCommand:
            settings = values.pop("settings", LaunchSettings())
            return ServeCommand(
                settings=settings,
                backend_settings={
                    name: chosen
                    for name, mounted in values.items()
                    if (chosen := backend_flags.chosen_values(mounted))
                },
                catalogue=self.known,
            )

        own = mounted("settings", LaunchSettings)
        return with_signature(serve, [own, *theirs])

    def _backends(
        self,
        *,
        json: Annotated[bool, Parameter(help="As one JSON document.", negative=())] = False,
        backend_python: Annotated[
            tuple[str, ...],
            Parameter(help="NAME=PATH: backend NAME lives in that Python.", negative=()),
        ] = (),
    ) -> BackendsCommand:
        """List the backends: what can run here, on which devices, and what is missing."""
        del backend_python  # the catalogue was built from it before the parser ran
        return BackendsCommand(catalogue=self.known, as_json=json)

    def _download_weights(self) -> Callable[..., Command]:
        def download_weights(model: str | None = None, **values: Any) -> DownloadCommand:
            """Bring a model and its adapters here, print where they lie, and serve nothing."""
            settings = settings_from(values)
            if model is not None:
                settings = settings_from(values, model_id=model)
            if settings.model_id is None:
                raise UsageError(
                    "download-weights wants to know what to download",
                    remedy="write backplane download-weights MODEL_ID",
                )
            return DownloadCommand(settings=settings, catalogue=self.known)

        shared = subset_of(LaunchSettings, ("model_id", "lora_adapters", *_DOWNLOADING))
        model = positional("model", "The model, as for --model-id.", default=None)
        return with_signature(download_weights, [model, mounted("settings", shared)])

    def _quantize(self) -> Callable[..., Command]:
        def quantize(
            model: str,
            out: str,
            *,
            type: str,  # noqa: A002 - named as its flag
            **values: Any,
        ) -> QuantizeCommand:
            """Write a model with its weights in another type."""
            return QuantizeCommand(
                settings=settings_from(values, model_id=model),
                catalogue=self.known,
                target=out,
                quantization=type.lower(),
            )

        kind = inspect.Parameter(
            "type",
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[
                str, Parameter(name="--type", help="What to make of the weights, such as q4_k_m.")
            ],
        )
        words = [
            positional("model", "The model, as for --model-id."),
            positional("out", "The file to write."),
        ]
        shared = subset_of(LaunchSettings, _DOWNLOADING)
        return with_signature(quantize, [*words, kind, mounted("settings", shared)])


def _print_schema() -> PrintSchemaCommand:
    """Print the API as an OpenAPI document."""
    return PrintSchemaCommand()


def _detect_watermark(
    file: Annotated[
        str,
        Parameter(
            help="The text to test, without its prompt; - reads it here.",
            allow_leading_hyphen=True,
        ),
    ],
    /,
    *,
    url: Annotated[
        str | None, Parameter(help="A server of the model that may have written it.")
    ] = None,
    api_key: Annotated[str | None, Parameter(help="The server's key.")] = None,
    watermark_gamma: Annotated[
        float, Parameter(name=("--gamma", "--watermark-gamma"), help="The watermark's own share.")
    ] = 0.5,
    tokens: Annotated[
        bool,
        Parameter(help="The file holds token ids as a JSON array, and no --url.", negative=()),
    ] = False,
    json: Annotated[bool, Parameter(help="As one JSON document.", negative=())] = False,
) -> DetectWatermarkCommand:
    """Say whether a text bears the watermark of a request with `watermark: true`."""
    if (url is None) != tokens:
        raise UsageError(
            "detect-watermark wants either the server that made the text's tokens or the tokens",
            remedy="give --url http://HOST:PORT, or --tokens with a file of ids",
        )
    if not 0 < watermark_gamma < 1:
        raise UsageError(f"--gamma {watermark_gamma:g} does not lie between 0 and 1")
    return DetectWatermarkCommand(
        file=file,
        url=url,
        api_key=api_key,
        gamma=watermark_gamma,
        are_tokens=tokens,
        as_json=json,
    )
