"""The command line: from arguments and environment to settings, and which command to run.

Light to import: what a command needs is loaded when it runs, so `--help` stays quick.
"""

import dataclasses
import difflib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from backplane_core.errors import BackplaneError
from backplane_core.process import JsonFormatter
from backplane_core.version import __version__
from cyclopts import App, CycloptsError
from cyclopts.exceptions import RepeatArgumentError, UnusedCliTokensError

from backplane_launcher import backend_flags, catalogue
from backplane_launcher.commands import (
    BackendsCommand,
    BenchCommand,
    BenchEngineCommand,
    Command,
    DetectWatermarkCommand,
    DownloadCommand,
    PrintSchemaCommand,
    QuantizeCommand,
    ServeCommand,
)
from backplane_launcher.contradictions import check_together
from backplane_launcher.environment import EnvironmentFlags
from backplane_launcher.help_page import command_app, render_help
from backplane_launcher.parser import COMMANDS, Parser, flags_of_settings
from backplane_launcher.sagemaker import without_serve
from backplane_launcher.settings.flag import boolean_word
from backplane_launcher.settings.replaced import notices
from backplane_launcher.usage import UsageError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_JSON_FLAG = "--json-output"
_TAKEN_BY = {
    "backends": "nothing but flags",
    "download-weights": "one model",
    "quantize": "a model and a file",
    "print-schema": "nothing",
    "detect-watermark": "one file",
    "bench": "nothing but flags",
    "bench engine": "nothing but flags",
}


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Command | None:
    """What the command line asks for; None when it was `--help` or `--version`, now printed.

    Raises:
        UsageError: a flag, a value or a variable is wrong.
        BackendError: a Python named by --backend-python cannot be asked.
    """
    argv = without_serve(argv, environ)
    known = catalogue.Catalogue.load(catalogue.interpreters(argv, environ))
    backend_flags.refuse_ambiguous(argv, known.facts, flags_of_settings())
    source = EnvironmentFlags(environ)
    named = catalogue.named_backend(argv, environ)
    app = Parser(known=known, source=source, named=named).build()
    if {"--version", "-V"}.intersection(argv):
        sys.stdout.write(f"backplane {__version__}\n")
        return None
    if {"--help", "-h"}.intersection(argv):
        sys.stdout.write(render_help(app, _command_of(argv)))
        return None
    try:
        command: Command = app(list(argv), exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        raise _explain_word((error.unused_tokens or ["it"])[0], argv) from error
    except RepeatArgumentError as error:
        raise _explain_repetition(app, argv, error.token.keyword or "") from error
    except CycloptsError as error:
        raise UsageError(" ".join(str(error).split())) from error
    if isinstance(command, ServeCommand | DownloadCommand):
        check_together(command.settings)
    if isinstance(command, ServeCommand):
        source.warn_of_unknown()
        settings = command.settings
        missed, others = notices(settings, source.spelled, tgi_strict=settings.tgi_strict)
        return dataclasses.replace(command, warnings=(*source.warnings, *missed), notices=others)
    return command


def main() -> int:
    """The entry point: run the command; the exit code is 0, 1 (failure), 2 (usage) or 130 (Ctrl-C).

    What ends it is told to people in a line of text, and with `--json-output` to programs before.
    """
    try:
        command = parse(sys.argv[1:], os.environ)
        return 0 if command is None else _run(command)
    except UsageError as error:
        _tell_programs(error)
        page = " ".join(filter(None, ("backplane", _command_of(sys.argv[1:]), "--help")))
        sys.stderr.write(f"error: {error}\n\nFor more information, try '{page}'.\n")
        return EXIT_USAGE
    except BackplaneError as error:
        _tell_programs(error)
        sys.stderr.write(f"Error: {error}\n")
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _tell_programs(error: BackplaneError) -> None:
    """One record of what ends the command, where the log is asked for in JSON."""
    if not _json_is_asked_for(sys.argv[1:], os.environ):
        return
    record = logging.LogRecord("backplane_launcher", logging.ERROR, "", 0, str(error), None, None)
    sys.stderr.write(f"{JsonFormatter('launcher').format(record)}\n")


def _json_is_asked_for(argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Read by itself: what cannot be meant elsewhere on the command line is told in JSON too."""
    if given := [word for word in argv if word.partition("=")[0] == _JSON_FLAG]:
        return boolean_word(given[-1].partition("=")[2] or "true") == "true"
    values = (environ.get(name, "").strip() for name in ("BACKPLANE_JSON_OUTPUT", "JSON_OUTPUT"))
    return boolean_word(next(filter(None, values), "false")) == "true"


def _run(command: Command) -> int:
    # Imported here and not above: none needs what the others load.
    match command:
        case ServeCommand():
            from backplane_launcher.serve import serve  # noqa: PLC0415 - lazy

            status = serve(command)
        case BackendsCommand():
            from backplane_launcher.backends_listing import print_backends  # noqa: PLC0415 - lazy

            status = print_backends(command, sys.stdout)
        case DownloadCommand():
            from backplane_launcher.download_command import download_weights  # noqa: PLC0415 - lazy

            status = download_weights(command, os.environ, sys.stdout)
        case QuantizeCommand():
            from backplane_launcher.quantize_command import quantize  # noqa: PLC0415 - lazy

            status = quantize(command, os.environ, sys.stdout)
        case PrintSchemaCommand():
            from backplane_launcher.schema_command import print_schema  # noqa: PLC0415 - lazy

            status = print_schema(sys.stdout)
        case DetectWatermarkCommand():
            from backplane_launcher.watermark_command import detect_watermark  # noqa: PLC0415 - lazy

            status = detect_watermark(command, sys.stdin, sys.stdout)
        case BenchCommand():
            from backplane_launcher.bench.command import bench  # noqa: PLC0415 - lazy

            status = bench(command.settings, sys.stdout, sys.stderr)
        case BenchEngineCommand():
            from backplane_launcher.bench_engine_command import bench_engine  # noqa: PLC0415 - lazy

            status = bench_engine(command, os.environ, sys.stdout)
    return status


def _command_of(argv: Sequence[str]) -> str | None:
    found = next((index for index, word in enumerate(argv) if word in COMMANDS), None)
    if found is None:
        return None
    of_another = " ".join(argv[found : found + 2])
    return of_another if of_another in COMMANDS else argv[found]


def _explain_repetition(app: App, argv: Sequence[str], flag: str) -> UsageError:
    command = _command_of(argv)
    arguments: Any = (command_app(app, command) if command else app).assemble_argument_collection()
    names = next((each.names for each in arguments if flag in each.names), (flag,))
    used = sorted({word.partition("=")[0] for word in argv}.intersection(names))
    if len(used) > 1:
        return UsageError(f"{' and '.join(used)} are one setting", remedy="give one")
    return UsageError(f"{flag} is there twice", remedy="give it once")


def _explain_word(word: str, argv: Sequence[str]) -> UsageError:
    """For a word that is neither a flag, a flag's value nor a command."""
    before = argv[argv.index(word) - 1] if word in argv[1:] else ""
    if before.startswith("--") and "=" not in before and boolean_word(word):
        return UsageError(
            f"{before} takes no word behind it", remedy=f"write {before}={boolean_word(word)}"
        )
    if command := _command_of(argv):
        takes = _TAKEN_BY[command]
        return UsageError(f"{command} takes {takes}, so {word} is too much", remedy="leave it out")
    if close := difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.7):
        return UsageError(f"there is no command {word}", remedy=f"did you mean {close[0]}?")
    return UsageError(
        f"{word} stands alone, but backplane takes only flags and commands",
        remedy=f"to serve a model of that name write --model-id {word}; the commands are "
        f"{', '.join(COMMANDS)}",
    )
