"""The command line: from arguments and environment to settings, and which command to run.

Light to import: what a command needs is loaded when it runs, so `--help` stays quick.
"""

import difflib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from backplane_core.errors import BackplaneError
from backplane_core.version import __version__
from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import UnusedCliTokensError

from backplane_launcher import backend_flags, catalogue
from backplane_launcher.commands import BackendsCommand, Command, ServeCommand
from backplane_launcher.environment import EnvironmentFlags
from backplane_launcher.help_page import render_help
from backplane_launcher.not_yet import refuse_flags_not_here, variables_not_here
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.usage import UsageError

EXIT_FAILURE = 1
EXIT_USAGE = 2


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Command | None:
    """What the command line asks for; None when it was `--help` or `--version`, now printed.

    Raises:
        UsageError: a flag, a value or a variable is wrong.
        BackendError: a Python named by --backend-python cannot be asked.
    """
    known = catalogue.Catalogue.load(catalogue.interpreters(argv, environ))
    reserved = _flags_of_settings()
    taken = backend_flags.short_flags(known.facts, reserved)
    refuse_flags_not_here(argv, taken)
    backend_flags.refuse_ambiguous(argv, known.facts)
    source = EnvironmentFlags(environ)
    app = _build_app(known, reserved, source, catalogue.named_backend(argv, environ))
    if {"--version", "-V"}.intersection(argv):
        sys.stdout.write(f"backplane {__version__}\n")
        return None
    if {"--help", "-h"}.intersection(argv):
        sys.stdout.write(render_help(app))
        return None
    try:
        command = app(list(argv), exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        raise _explain_word((error.unused_tokens or ["it"])[0]) from error
    except CycloptsError as error:
        raise UsageError(" ".join(str(error).split())) from error
    if isinstance(command, ServeCommand):
        _check_together(command.settings)
        sentences = (*source.warnings, *variables_not_here(environ, taken))
        return ServeCommand(
            settings=command.settings,
            backend_settings=command.backend_settings,
            catalogue=known,
            warnings=sentences,
        )
    return command if isinstance(command, BackendsCommand) else None


def main() -> int:
    """The entry point: run the command; the exit code is 0, 1 (failure) or 2 (usage)."""
    try:
        match parse(sys.argv[1:], os.environ):
            case None:
                return 0
            case BackendsCommand() as command:
                from backplane_launcher.backends_listing import print_backends  # noqa: PLC0415 - lazy

                return print_backends(command, sys.stdout)
            case ServeCommand() as command:
                from backplane_launcher.serve import serve  # noqa: PLC0415 - lazy: asyncio and all

                return serve(command)
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n\nFor more information, try 'backplane --help'.\n")
        return EXIT_USAGE
    except BackplaneError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 0


def _build_app(
    known: catalogue.Catalogue,
    reserved: frozenset[str],
    source: EnvironmentFlags,
    named: str | None,
) -> App:
    app = App(
        name="backplane",
        version_flags=(),
        help_flags=(),
        config=source,
        result_action="return_value",
    )
    app.default(_serve_function(reserved, known, named))

    @app.command
    def backends(  # pyright: ignore[reportUnusedFunction] - registered by its decorator
        *,
        json: Annotated[bool, Parameter(help="As one JSON document.", negative=())] = False,
        backend_python: Annotated[
            tuple[str, ...],
            Parameter(help="NAME=PATH: backend NAME lives in that Python.", negative=()),
        ] = (),
    ) -> BackendsCommand:
        """List the backends: what can run here, on which devices, and what is missing."""
        del backend_python  # the catalogue was built from it before the parser ran
        return BackendsCommand(catalogue=known, as_json=json)

    return app


def _serve_function(
    reserved: frozenset[str], known: catalogue.Catalogue, named: str | None
) -> Callable[..., ServeCommand]:
    def serve(**values: Any) -> ServeCommand:
        settings = values.pop("settings", LaunchSettings())
        return ServeCommand(
            settings=settings,
            backend_settings={
                name: chosen
                for name, mounted in values.items()
                if (chosen := backend_flags.chosen_values(mounted))
            },
            catalogue=known,
        )

    common = inspect.Parameter(
        "settings",
        inspect.Parameter.KEYWORD_ONLY,
        default=LaunchSettings(),
        annotation=Annotated[LaunchSettings, Parameter(name="*")],
    )
    signature = [common, *backend_flags.parameters(known.facts, reserved, named)]
    # cyclopts reads a function's signature; this one is known only once backends are.
    function: Any = serve
    function.__signature__ = inspect.Signature(signature)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in signature}
    return serve


def _flags_of_settings() -> frozenset[str]:
    annotations = inspect.get_annotations(LaunchSettings)
    return frozenset(
        name for hint in annotations.values() for name in hint.__metadata__[0].name
    ) | {"--help", "-h", "--version", "-V"}


def _explain_word(word: str) -> UsageError:
    """For a word that is neither a flag, a flag's value nor a command."""
    if difflib.get_close_matches(word, ["backends"], cutoff=0.7):
        return UsageError(f"there is no command {word}", remedy="did you mean backends?")
    return UsageError(
        f"{word} stands alone, but backplane takes only flags and the command backends",
        remedy=f"to serve a model of that name write --model-id {word}",
    )


def _check_together(settings: LaunchSettings) -> None:
    longest, whole = settings.max_input_tokens, settings.max_total_tokens
    if longest is not None and whole is not None and longest >= whole:
        raise UsageError(
            f"--max-input-tokens {longest} leaves no room for an answer within "
            f"--max-total-tokens {whole}",
            remedy="make --max-total-tokens the larger",
        )
