"""`backplane quantize`: a model written with its weights in another type, by a backend."""

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

from backplane_core import quantize as quantization
from backplane_core.backend import BackendFacts
from backplane_core.errors import BackendError
from backplane_core.process import configure_logging

from backplane_launcher.choice import AUTO, check_name
from backplane_launcher.commands import QuantizeCommand
from backplane_launcher.console_progress import ConsoleProgress
from backplane_launcher.launch_documents import child_environment
from backplane_launcher.local_path import local_path
from backplane_launcher.model_download import bring_model
from backplane_launcher.usage import UsageError

_log = logging.getLogger(__name__)

# What TGI's own command makes, or its --quantize loads.
_NOT_MADE: Final = frozenset(
    {"awq", "gptq", "marlin", "exl2", "eetq", "compressed-tensors", "fp8", "bitsandbytes"}
)


def quantize(command: QuantizeCommand, environ: Mapping[str, str], output: TextIO) -> int:
    """Bring the model here and write it anew; one line with the path of the new file.

    Raises:
        UsageError: no backend makes this type, or the target cannot be meant.
        BackplaneError: the model is not to be had, or the backend cannot write it.
    """
    settings, catalogue = command.settings, command.catalogue
    configure_logging(settings.log_level, as_json=settings.json_output, label="quantize")
    check_name(settings.backend, catalogue.facts)
    facts = _maker(command.quantization, settings.backend, catalogue.facts)
    target = local_path(command.target)
    if target.exists():
        raise UsageError(f"{target} exists already", remedy="remove it, or name another file")
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", remedy="make it first")
    progress = ConsoleProgress(sys.stderr, as_json=settings.json_output)
    # The files that its maker reads, whoever would serve the model.
    reading = dataclasses.replace(settings, backend=facts.name)
    source = bring_model(reading, catalogue, environ, progress)
    order = quantization.Order(
        backend=facts.name,
        source=source,
        target=str(target.absolute()),
        quantization=command.quantization,
    )
    python = catalogue.python_of(facts.name)
    quantization.run(python, order, progress, child_environment(environ))
    output.write(f"{target}\n")
    return 0


def _maker(kind: str, wanted: str, facts: Sequence[BackendFacts]) -> BackendFacts:
    """The backend that makes this type."""
    asked = [each for each in facts if wanted in (AUTO, each.name)]
    able = [each for each in asked if kind in each.quantizations]
    if able:
        return max(able, key=lambda each: each.priority)
    made = dict.fromkeys(name for each in asked for name in each.quantizations)
    if not made:
        raise BackendError(
            "no backend that is installed can quantize"
            if wanted == AUTO
            else f"backend {wanted} cannot quantize",
            remedy="install one that can, for example backplane-llamacpp",
        )
    if kind in _NOT_MADE or kind.startswith("bitsandbytes"):
        raise UsageError(
            f"{kind} weights are not made here",
            remedy=f"take a model that is published as {kind}, or make GGUF: {', '.join(made)}",
        )
    raise UsageError(f"no backend makes {kind}", remedy=f"there are: {', '.join(made)}")
